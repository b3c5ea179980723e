// SPDX-License-Identifier: MIT OR Apache-2.0
//! `config`: look after the configuration file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use pqvpn_node::{
    config::{self, Config},
    store,
};
use serde_json::{Value, json};

use crate::{
    cli::ConfigVerb,
    context::{Context, absolute_path},
    failure::Failure,
};

pub(crate) fn run(context: &Context, verb: &ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Init { stdout: true, .. } => {
            context.output.verbatim(&config::sample());
            Ok(())
        }
        ConfigVerb::Init { force, .. } => init(context, *force),
        ConfigVerb::Check { file } => check(context, file.as_deref()),
        ConfigVerb::Show => show(context),
        ConfigVerb::Convert { file } => convert(context, file),
    }
}

fn init(context: &Context, force: bool) -> Result<(), Failure> {
    let path = context.config_path()?;
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Failure::failed(
                "exists",
                "no configuration was written",
                format!("{} exists already", path.display()),
                "edit it, or replace it with `--force`",
            );
        }
        Failure::file("no configuration was written", &path, &error)
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let sample = config::sample();
    if force {
        store::write_atomic(&path, sample.as_bytes(), 0o644)
            .map_err(|error| Failure::from(error).while_doing("no configuration was written"))?;
    } else {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        if let Err(error) = file.write_all(sample.as_bytes()) {
            // Half a sample would stand in the way of the next attempt, or be taken for a configuration.
            let _half = fs::remove_file(&path);
            return Err(failed(error));
        }
    }
    let json = json!({"schema": pqvpn_api::SCHEMA, "path": path});
    context.output.done(&json, |_| {
        format!(
            "wrote {}; then `pqvpn net create NAME` makes a network, or `pqvpn join CODE` joins one\n\
             Peers without a network: name them in it, then `pqvpn config check` and `pqvpn up`",
            path.display()
        )
    });
    Ok(())
}

fn check(context: &Context, file: Option<&Path>) -> Result<(), Failure> {
    let path = match file {
        Some(file) => absolute_path(file),
        None => context.config_path()?,
    };
    let config = Config::load(&path)?;
    let warnings = config.check();
    let listed: Vec<Value> =
        warnings.iter().map(|item| json!({"code": item.code, "key": item.key, "text": item.text})).collect();
    let json = json!({"schema": pqvpn_api::SCHEMA, "path": path, "ok": true, "warnings": listed});
    for warning in &warnings {
        context.output.remark(&warning.to_string());
    }
    context.output.done(&json, |_| format!("{} is fine", path.display()));
    Ok(())
}

fn show(context: &Context) -> Result<(), Failure> {
    let mut config = context.config()?;
    config.node.proxy = config.node.proxy.shown();
    let text = config.to_toml();
    if !context.output.json {
        context.output.verbatim(&text);
        return Ok(());
    }
    let values: Value = toml::from_str(&text)
        .map_err(|error| Failure::failed("internal", "no configuration to show", error, "report this as a fault"))?;
    context.output.result(&json!({"schema": pqvpn_api::SCHEMA, "config": values}), |_| text);
    Ok(())
}

fn convert(context: &Context, file: &Path) -> Result<(), Failure> {
    let file = absolute_path(file);
    let converted = config::convert(&config::read_file(&file)?, &file.display().to_string())?;
    let json = json!({"schema": pqvpn_api::SCHEMA, "toml": converted});
    context.output.result(&json, |_| converted.clone());
    Ok(())
}
