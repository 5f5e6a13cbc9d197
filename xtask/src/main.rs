//! Automation: builds and runs every suite.

fn main() {}
