//! Simulated disk, workloads and checkers: the engine under crashes.
