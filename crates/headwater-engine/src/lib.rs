//! The store: journal, containers, catalogue, chunks, tables.
