// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/set`: a setting is checked as part of the whole configuration, given to the node, then kept in the file.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use axum::{Json, extract::State};
use pqvpn_node::{config, handle::SetOutcome, store};
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::{ApiError, Code},
    model::{SetRequest, Setting},
};

const WHAT: &str = "nothing was set";
/// Permission bits of a configuration file this makes; an existing one keeps its own.
const NEW_FILE_MODE: u32 = 0o644;

pub(super) async fn post(
    State(service): State<Service>,
    Body(SetRequest { key, value }): Body<SetRequest>,
) -> Result<Json<Setting>, ApiError> {
    let applied = async || {
        let outcome = service.node.set(key.clone(), value.clone()).await.map_err(because(WHAT))?;
        // In force it is also where the file then cannot keep it.
        if outcome == SetOutcome::Applied {
            service.note_set(&key, &value);
        }
        Ok::<_, ApiError>(outcome)
    };
    let outcome = match &service.settings {
        None => applied().await?,
        Some(settings) => {
            let _one_at_a_time = settings.turn.lock().await;
            let text = settings.with(&key, &value).await?;
            let outcome = applied().await?;
            settings.write(text, outcome).await?;
            outcome
        }
    };
    Ok(Json(Setting { schema: SCHEMA, key, value, outcome: outcome.into() }))
}

/// The configuration file settings are kept in.
#[derive(Debug)]
pub(super) struct SettingsFile {
    path: Arc<PathBuf>,
    turn: Mutex<()>,
}

impl SettingsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), turn: Mutex::new(()) }
    }

    /// The file's text with the setting changed; nothing is written.
    async fn with(&self, key: &str, value: &str) -> Result<String, ApiError> {
        let path = Arc::clone(&self.path);
        let (key, value) = (key.to_owned(), value.to_owned());
        in_background(move || {
            if config::is_yaml(&path) {
                return Err(refused(&path, "it is YAML", "`pqvpn config convert` makes TOML of it"));
            }
            let text = match config::read_file(&path) {
                Ok(text) => text,
                Err(error) if error.is_not_found() => String::new(),
                Err(error) => return Err(refused(&path, error, "check the file")),
            };
            config::set(&text, &key, &value).map_err(|error| {
                let hint = "`pqvpn config show` lists the settings and their values";
                ApiError::new(Code::BadSetting, WHAT, error.to_string().replace('\n', "; "), hint)
            })
        })
        .await
    }

    async fn write(&self, text: String, outcome: SetOutcome) -> Result<(), ApiError> {
        let path = Arc::clone(&self.path);
        in_background(move || {
            let mode = fs::metadata(&*path).map_or(NEW_FILE_MODE, |meta| meta.permissions().mode() & 0o777);
            let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
            directory
                .map_err(|error: io::Error| error.to_string())
                .and_then(|()| store::write_atomic(&path, text.as_bytes(), mode).map_err(|error| error.to_string()))
                .map_err(|why| {
                    let what = match outcome {
                        SetOutcome::Applied => "the setting holds until the daemon stops, and was not kept",
                        SetOutcome::AfterRestart => "the setting was not kept, and changes nothing",
                    };
                    ApiError::new(Code::Host, what, why, "make the file writable for the daemon, or edit it")
                })
        })
        .await
    }
}

fn refused(path: &std::path::Path, why: impl std::fmt::Display, hint: &str) -> ApiError {
    ApiError::new(Code::BadSetting, WHAT, format!("{} cannot be changed: {why}", path.display()), hint)
}

/// Files may take long; requests of others go on meanwhile.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ApiError::new(Code::Failed, WHAT, error.to_string(), "the daemon's log says more")))
}
