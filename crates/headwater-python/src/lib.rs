//! The Python package `headwater`: what Python cannot do itself. `python/headwater/` is what its users see.
//!
//! Guarantees:
//! * nobody waits with the interpreter in his hands, and Ctrl-C ends every wait within a twentieth of a second
//! * what the client fails with becomes an exception of its kind; exceptions of Python code that is called pass through
//! * an operation that is interrupted or cancelled loses nothing that was read
//!
//! There is no unsafe code here: PyO3's macros write some, and answer for it themselves.

mod acknowledging;
mod byte_stream;
mod client;
mod errors;
mod groups;
mod indexing;
mod members;
mod numbered;
mod oidc;
mod pending;
mod reading;
mod runtime;
mod synchronizing;
mod table_synchronizing;
mod tables;
mod transactions;
mod values;
mod writing;

use pyo3::prelude::*;

/// What the package is made of. Nothing here is for others than `headwater` itself.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::acknowledging::{NativeAcknowledgingReader, PyReceived};
    #[pymodule_export]
    use crate::byte_stream::{_byte_reader, _byte_writer, NativeByteReader, NativeByteWriter};
    #[pymodule_export]
    use crate::client::{_connect, _open, NativeClient};
    #[pymodule_export]
    use crate::groups::{
        _create_reader_group, _delete_reader_group, _reader_group, NativeCheckpointUnderWay, NativeEventReader,
        NativeReaderGroup, PyEventBatch, PyGroupWatch,
    };
    #[pymodule_export]
    use crate::indexing::{_index_reader, _index_writer, NativeIndexReader, NativeIndexRecords, NativeIndexWriter};
    #[pymodule_export]
    use crate::members::{_join, NativeMembership};
    #[pymodule_export]
    use crate::numbered::{_numbered_writer, NativeNumberedWriter};
    #[pymodule_export]
    use crate::pending::{_deliver, _stop, Pending};
    #[pymodule_export]
    use crate::reading::{NativeEntries, NativeSliceReader, NativeStreamReader, PyEvent};
    #[pymodule_export]
    use crate::runtime::_after_fork;
    #[pymodule_export]
    use crate::synchronizing::{
        _revisioned_stream, _state_synchronizer, NativeRevisionReader, NativeRevisionedStream, NativeStateSynchronizer,
    };
    #[pymodule_export]
    use crate::table_synchronizing::{_table_synchronizer, NativeTableSynchronizer, PySharedMaps};
    #[pymodule_export]
    use crate::tables::{
        _create_key_value_table, _delete_key_value_table, _delete_table, _key_value_table, _key_value_tables, _table,
        NativeKeyValueTable, NativeTable,
    };
    #[pymodule_export]
    use crate::transactions::{NativeTransaction, NativeTransactionWriter};
    #[pymodule_export]
    use crate::values::{PyCheckpoint, PyEventPointer, PyPosition, PyRevision, PyStreamCut, PyVersion};
    #[pymodule_export]
    use crate::writing::NativeEventWriter;
}
