// SPDX-License-Identifier: MIT OR Apache-2.0
//! `set KEY VALUE`: change one setting of the running daemon.

use pqvpn_api::model::SetOutcome;

use crate::{cli::SetArgs, context::Context, failure::Failure};

pub(crate) async fn run(context: &Context, args: &SetArgs) -> Result<(), Failure> {
    let setting = context.client()?.set(&args.key, &args.value).await?;
    context.output.done(&setting, |_| {
        let when = match setting.outcome {
            SetOutcome::Applied => "in force now",
            SetOutcome::AfterRestart => "in force from the next start",
        };
        format!("{} = {} ({when})", setting.key, setting.value)
    });
    Ok(())
}
