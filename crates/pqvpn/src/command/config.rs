// SPDX-License-Identifier: MIT OR Apache-2.0
//! `config`: look after the configuration file.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use pqvpn_api::model::Started;
use pqvpn_node::{
    config::{self, Config},
    store,
};
use serde_json::{Value, json};

use super::beside::Beside;
use crate::{
    cli::ConfigVerb,
    context::{Context, absolute_path, is_same_directory, is_same_file},
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
    let path = context.config_path().ok().filter(|path| path.exists());
    let mut config = context.config()?;
    let started = Beside::ask(context).and_then(|beside| beside.started);
    let beside = started.map(|with| {
        // Without a home there is no state directory to compare.
        let state_dir = context.state_dir(&config).ok().filter(|own| !is_same_directory(own, &with.state_dir));
        let in_force = context.in_force(&config, state_dir.as_deref().unwrap_or(&with.state_dir));
        let differs = differing(&in_force.to_toml(), &with.settings);
        (with, differs)
    });
    config.node.proxy = config.node.proxy.shown();
    let text = config.to_toml();
    if context.output.json {
        let values: Value = toml::from_str(&text).map_err(|error| {
            Failure::failed("internal", "no configuration to show", error, "report this as a fault")
        })?;
        let daemon = beside.as_ref().map(|(with, differs)| {
            json!({
                "pid": with.pid, "config": with.config, "state_dir": with.state_dir, "ephemeral": with.ephemeral,
                "differs": differs,
            })
        });
        let json = json!({"schema": pqvpn_api::SCHEMA, "config": values, "path": path, "daemon": daemon});
        context.output.result(&json, |_| text);
    } else {
        context.output.verbatim(&text);
    }
    let remark = beside.and_then(|(with, differs)| remark(context, path.as_deref(), &with, &differs));
    remark.iter().for_each(|remark| context.output.remark(remark));
    Ok(())
}

/// What is to be said of a daemon that runs with another file, or with other values.
fn remark(context: &Context, path: Option<&Path>, with: &Started, differs: &[String]) -> Option<String> {
    let own = context.config_path().ok();
    let is_same = match (&own, &with.config) {
        (Some(own), Some(its)) => is_same_file(own, its),
        (own, its) => own == its,
    };
    if is_same && differs.is_empty() {
        return None;
    }
    let shown = path.map_or_else(|| "the defaults say".to_owned(), |path| format!("{} says", path.display()));
    let its = with.config.as_ref().filter(|_| !is_same);
    let its = its.map_or_else(String::new, |config| format!(" was started with {} and", config.display()));
    let values = if differs.is_empty() {
        "the same values".to_owned()
    } else {
        format!("other values of {}, from its options or from before the file was changed", differs.join(", "))
    };
    Some(format!("this is what {shown}; the running daemon (process {}){its} has {values}", with.pid))
}

/// The settings whose values differ, as `section.key`; lists of tables count as one.
fn differing(one: &str, other: &str) -> Vec<String> {
    let read = |text: &str| {
        let mut values = BTreeMap::new();
        // Both were written by this program, or its twin.
        flatten("", toml::from_str(text).unwrap_or_default(), &mut values);
        values
    };
    let (one, other) = (read(one), read(other));
    let mut keys: Vec<String> =
        one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key)).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

fn flatten(prefix: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    let Value::Object(table) = value else {
        into.insert(prefix.to_owned(), value);
        return;
    };
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        flatten(&key, value, into);
    }
}

fn convert(context: &Context, file: &Path) -> Result<(), Failure> {
    let file = absolute_path(file);
    let converted = config::convert(&config::read_file(&file)?, &file.display().to_string())?;
    let json = json!({"schema": pqvpn_api::SCHEMA, "toml": converted});
    context.output.result(&json, |_| converted.clone());
    Ok(())
}
