//! Segments that are ours: the controller's tables, which clients must not see, and the list of the tables that clients
//! made under a scope, which the controller must find when the scope goes.
//!
//! Invariant: a client's table is on the list before it exists, and leaves it only after it is gone.

use bytes::Bytes;
use headwater_controller::Version;
use headwater_engine::api::{Expect, Request, SYSTEM_TABLES, TableChange};
use headwater_types::SegmentName;

/// Where the controller keeps its own tables. Clients of the segment store see nothing there.
pub(crate) const PRIVATE_TABLES: &str = SYSTEM_TABLES;

/// Table segment whose keys are the names of all table segments that clients made under a scope. A name may be here
/// without its segment: it is put down before the segment is created and taken away after it is deleted. No table of
/// the controller has this name, since `#` is escaped in those.
pub(crate) const CLIENT_TABLES: &str = "_system/_tables/#clients";

/// Marks the second part of a client table's name. Source: Pravega's naming of key-value table segments.
const CLIENT_TABLE_SUFFIX: &str = "_kvtable";

/// Reads a segment name; private ones are not names for clients.
pub(crate) fn public_name(text: &str) -> Option<SegmentName> {
    SegmentName::parse(text).ok().filter(|name| !name.as_str().starts_with(PRIVATE_TABLES))
}

/// The segment of [`CLIENT_TABLES`].
pub(crate) fn client_tables() -> SegmentName {
    SegmentName::parse(CLIENT_TABLES).expect("the name is printable and short")
}

/// Whether a client's table segment belongs to a scope and goes with it.
pub(crate) fn is_client_table(segment: &SegmentName) -> bool {
    let mut parts = segment.as_str().split('/');
    let (scope, table) = (parts.next(), parts.next());
    scope.is_some_and(|scope| !scope.is_empty()) && table.is_some_and(|table| table.ends_with(CLIENT_TABLE_SUFFIX))
}

/// Puts the name of a client's table down, before the table is created.
pub(crate) fn note_client_table(table: &SegmentName) -> Request {
    let change = TableChange { key: client_table_key(table), value: Some(NOTE), expect: Expect::Any };
    Request::TableUpdate { segment: client_tables(), changes: vec![change], at: None }
}

/// Asks for the note of a client's table, before the table is deleted.
pub(crate) fn find_client_table(table: &SegmentName) -> Request {
    Request::TableGet { segment: client_tables(), keys: vec![client_table_key(table)] }
}

/// Takes the name of a client's table away, after the table was deleted. If someone put it down again since `version`
/// was read, it stays.
pub(crate) fn forget_client_table(table: &SegmentName, version: Version) -> Request {
    let expect = Expect::Version(version);
    let change = TableChange { key: client_table_key(table), value: None, expect };
    Request::TableUpdate { segment: client_tables(), changes: vec![change], at: None }
}

/// A note says nothing but that it is there.
const NOTE: Bytes = Bytes::from_static(b"1");

fn client_table_key(table: &SegmentName) -> Bytes {
    Bytes::copy_from_slice(table.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_clients_are_known_by_their_names() {
        for (name, expected) in [
            ("s/t_kvtable/0.#epoch.0", true),
            ("s/group_kvtable/0.#epoch.0", true),
            ("s/t/0.#epoch.0", false),
            ("t_kvtable", false),
            ("_system/_tables/scopes", false),
        ] {
            assert_eq!(is_client_table(&SegmentName::parse(name).unwrap()), expected, "{name}");
        }
    }
}
