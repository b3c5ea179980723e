// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/bootstrap`: the nodes discovery starts from; what is added is kept before it is tried.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Json, extract::State};
use data_encoding::BASE64;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::{
    bootstrap::{BootstrapEntry, ListError, Removed, Shelf, ShelfError},
    dht::{DhtError, DoorSource, GoneDoor, NewDoor},
    handle::NodeError,
};
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::{ApiError, Code},
    model::{
        Bootstrap, BootstrapAddRequest, BootstrapAdded, BootstrapList, BootstrapRemoveRequest, BootstrapRemoved, Door,
    },
};

/// Largest request in bytes: a list of 32 KiB in base64, and room for the names around it.
pub(super) const BODY_LIMIT: usize = 64 * 1024;
const WHAT: &str = "no bootstrap node was added";
const NOT_REMOVED: &str = "no bootstrap node was removed";

/// The shelf bootstrap nodes are kept on, one change at a time.
#[derive(Debug)]
pub(super) struct Kept {
    shelf: Shelf,
    turn: Mutex<()>,
}

impl Kept {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf, turn: Mutex::new(()) }
    }
}

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Bootstrap>, ApiError> {
    let (enabled, doors) = match service.node.bootstrap_list().await {
        Ok(doors) => (true, doors),
        Err(NodeError::Dht(DhtError::Off)) => (false, Vec::new()),
        Err(error) => return Err(because("no list of bootstrap nodes")(error)),
    };
    let lists = match service.bootstrap.clone() {
        None => Vec::new(),
        Some(kept) => {
            let read = move || Ok(kept.shelf.lists().iter().map(|list| BootstrapList::of(list, now_ms())).collect());
            in_background(read).await?
        }
    };
    Ok(Json(Bootstrap { schema: SCHEMA, enabled, doors: doors.into_iter().map(Door::from).collect(), lists }))
}

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<BootstrapAddRequest>,
) -> Result<Json<BootstrapAdded>, ApiError> {
    let own = service.identity().peer_id;
    let kept = service.bootstrap.is_some() && request.list.is_none();
    let (mut answer, doors) = match (request.entries.is_empty(), request.list) {
        (false, None) => {
            let entries = parse(&request.entries, &own)?;
            add_entries(service.bootstrap.clone(), entries).await?
        }
        (true, Some(list)) => {
            let bytes = BASE64.decode(list.as_bytes()).map_err(|_| malformed("`list` is not base64"))?;
            add_list(service.bootstrap.clone(), bytes, request.trust).await?
        }
        (true, None) | (false, Some(_)) => return Err(malformed("it takes `entries` or `list`, one of them")),
    };
    let doors: Vec<NewDoor> = doors.into_iter().filter(|door| door.peer.to_string() != own).collect();
    if !doors.is_empty() {
        match service.node.bootstrap_add(doors).await {
            // What was kept is new, also where the DHT knew it from elsewhere.
            Ok(tried) if kept => (answer.added, answer.tried) = (answer.added.max(tried), true),
            Ok(tried) => (answer.added, answer.tried) = (tried, true),
            Err(NodeError::Dht(DhtError::Off)) => {}
            Err(error) => return Err(because("it is kept for the next start, and not tried now")(error)),
        }
    }
    Ok(Json(answer))
}

pub(super) async fn remove(
    State(service): State<Service>,
    Body(request): Body<BootstrapRemoveRequest>,
) -> Result<Json<BootstrapRemoved>, ApiError> {
    let entry = request.what.parse::<BootstrapEntry>();
    let peer =
        entry.as_ref().map_or_else(|_| request.what.to_ascii_lowercase().parse::<PeerId>(), |entry| Ok(entry.id));
    let entry = entry.ok();
    let Ok(peer) = peer else {
        let why = "it takes an entry, or 64 hex digits of an identity";
        return Err(ApiError { what: NOT_REMOVED.into(), ..malformed(why) });
    };
    let Some(kept) = service.bootstrap.clone() else {
        let hint = "leave them out of the configuration";
        return Err(ApiError::new(Code::Failed, NOT_REMOVED, "this daemon keeps none", hint));
    };
    let _one_at_a_time = kept.turn.lock().await;
    let work = Arc::clone(&kept);
    let refused = |error| ApiError { what: NOT_REMOVED.into(), ..refused(error) };
    let taken = move || {
        let removed = work.shelf.remove(&peer, entry.as_ref())?;
        Ok((removed, work.shelf.added().unwrap_or_default()))
    };
    let (removed, left) = in_background(move || taken().map_err(refused)).await?;
    let dropped = match service.node.bootstrap_remove(gone(&removed, &left)).await {
        Ok(dropped) => Some(dropped),
        Err(NodeError::Dht(DhtError::Off)) => None,
        Err(error) => return Err(because("it is removed, and tried until the DHT next starts")(error)),
    };
    let Removed { entries, list, distrusted } = removed;
    let entries = entries.iter().map(ToString::to_string).collect();
    Ok(Json(BootstrapRemoved { schema: SCHEMA, entries, list: list.is_some(), distrusted, dropped }))
}

/// The doors that what was removed had named; `left`: the entries that are still there.
fn gone(removed: &Removed, left: &[BootstrapEntry]) -> Vec<GoneDoor> {
    let door = |entry: &BootstrapEntry, source, wholly| GoneDoor {
        peer: entry.id,
        endpoint: entry.endpoint.to_string(),
        source,
        wholly,
    };
    let named_still = |entry: &BootstrapEntry| left.iter().any(|other| other.id == entry.id);
    let by_hand = removed.entries.iter().map(|entry| door(entry, DoorSource::User, !named_still(entry)));
    let listed = removed.list.iter().flat_map(|list| &list.draft().entries);
    by_hand.chain(listed.map(|entry| door(entry, DoorSource::List, true))).collect()
}

fn parse(texts: &[String], own: &str) -> Result<Vec<BootstrapEntry>, ApiError> {
    let entry = |text: &String| {
        let entry: BootstrapEntry = text.parse().map_err(|what: String| malformed(&what))?;
        if entry.id.to_string() == own { Err(malformed("this is the node itself")) } else { Ok(entry) }
    };
    texts.iter().map(entry).collect()
}

async fn add_entries(
    kept: Option<Arc<Kept>>,
    entries: Vec<BootstrapEntry>,
) -> Result<(BootstrapAdded, Vec<NewDoor>), ApiError> {
    let new = match kept {
        None => entries.clone(),
        Some(kept) => {
            let _one_at_a_time = kept.turn.lock().await;
            let (kept, entries) = (Arc::clone(&kept), entries.clone());
            in_background(move || kept.shelf.add_entries(&entries).map_err(refused)).await?
        }
    };
    let door = |entry: &BootstrapEntry| NewDoor {
        peer: entry.id,
        endpoints: vec![entry.endpoint.to_string()],
        source: DoorSource::User,
        expires_ms: None,
    };
    Ok((answer(new.len()), entries.iter().map(door).collect()))
}

async fn add_list(
    kept: Option<Arc<Kept>>,
    bytes: Vec<u8>,
    trust: bool,
) -> Result<(BootstrapAdded, Vec<NewDoor>), ApiError> {
    let Some(kept) = kept else {
        return Err(ApiError::new(Code::Failed, WHAT, "this daemon keeps no lists", "add the entries one by one"));
    };
    let _one_at_a_time = kept.turn.lock().await;
    let work = Arc::clone(&kept);
    let added = in_background(move || work.shelf.add_list(&bytes, trust, now_ms()).map_err(refused)).await?;
    let draft = added.list.draft();
    let door = |entry: &BootstrapEntry| NewDoor {
        peer: entry.id,
        endpoints: vec![entry.endpoint.to_string()],
        source: DoorSource::List,
        expires_ms: Some(draft.expires_ms),
    };
    let answer = BootstrapAdded {
        signer: Some(added.list.signer().to_string()),
        newly_trusted: added.newly_trusted,
        warning: added.freshness.warning(),
        ..answer(draft.entries.len())
    };
    Ok((answer, draft.entries.iter().map(door).collect()))
}

const fn answer(added: usize) -> BootstrapAdded {
    BootstrapAdded { schema: SCHEMA, added, tried: false, signer: None, newly_trusted: false, warning: None }
}

/// What the shelf says, with what to try.
fn refused(error: ShelfError) -> ApiError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong with a list, only another one helps")]
    let (code, hint) = match &error {
        ShelfError::List(ListError::Signer(_)) => {
            (Code::Refused, "if you know the signer, `pqvpn bootstrap add --trust FILE` believes it from now on")
        }
        ShelfError::List(ListError::Superseded(_)) => (Code::Refused, "`pqvpn bootstrap list` shows the newer one"),
        ShelfError::List(ListError::Network) => (Code::Refused, "ask for a list of the DHT this node is in"),
        ShelfError::List(_) => (Code::BadRequest, "ask its signer for the file again"),
        ShelfError::NotHere { .. } => (Code::NotFound, "`pqvpn bootstrap list` shows what there is, and who names it"),
        ShelfError::Full { .. } => (Code::Failed, "`pqvpn bootstrap remove` makes room, then add again"),
        _ => (Code::Host, "check the state directory of the daemon"),
    };
    ApiError::new(code, WHAT, error.to_string(), hint)
}

fn malformed(why: &str) -> ApiError {
    ApiError::new(Code::BadRequest, WHAT, why, "an entry is `pqvpn://<64 hex digits of the PeerID>@host:port`")
}

/// Wall clock in ms since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Files may take long; requests of others go on meanwhile.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ApiError::new(Code::Failed, WHAT, error.to_string(), "the daemon's log says more")))
}
