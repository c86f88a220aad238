//! The messages between the launcher and the queue workers.

use pgrx::pg_sys;

use super::lane::Lane;

/// Where a worker works.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) database: pg_sys::Oid,
    pub(super) lane: Lane,
}

/// The argument that the launcher starts a worker with.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) place: Place,
    /// Whether the log says already that the extension of this database is of another version.
    pub(super) is_explained: bool,
}

impl Start {
    /// The argument of the worker's main function.
    pub(super) fn argument(self) -> pg_sys::Datum {
        let [a, b, c, d] = u32::from(self.place.database).to_le_bytes();
        let lane = self.place.lane.letter() as u8;
        let bytes = [a, b, c, d, lane, u8::from(self.is_explained), 0, 0];
        pg_sys::Datum::from(u64::from_le_bytes(bytes))
    }

    pub(super) fn from_argument(argument: pg_sys::Datum) -> Option<Start> {
        let [a, b, c, d, lane, is_explained, ..] = argument.value().to_le_bytes();
        let database = pg_sys::Oid::from(u32::from_le_bytes([a, b, c, d]));
        let place = Place { database, lane: Lane::from_letter(lane)? };
        Some(Start { place, is_explained: is_explained != 0 })
    }
}

/// The reasons to wake the launcher.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// There is work and no worker.
    Wanted(Place),
    /// The worker leaves because it has nothing to do.
    Idle(Place),
    /// The worker leaves because the extension is of another version than the library, and the log says so.
    OtherVersion(Place),
}

impl Message {
    pub(super) fn encode(self) -> [u8; 6] {
        let (kind, Place { database, lane }) = match self {
            Message::Wanted(place) => (b'w', place),
            Message::Idle(place) => (b'i', place),
            Message::OtherVersion(place) => (b'v', place),
        };
        let [a, b, c, d] = u32::from(database).to_le_bytes();
        [kind, lane.letter() as u8, a, b, c, d]
    }

    pub(super) fn decode(message: &[u8]) -> Option<Message> {
        let [kind, lane, ref database @ ..] = *message else {
            return None;
        };
        let database = pg_sys::Oid::from(u32::from_le_bytes(database.try_into().ok()?));
        let place = Place { database, lane: Lane::from_letter(lane)? };
        match kind {
            b'w' => Some(Message::Wanted(place)),
            b'i' => Some(Message::Idle(place)),
            b'v' => Some(Message::OtherVersion(place)),
            _ => None,
        }
    }
}
