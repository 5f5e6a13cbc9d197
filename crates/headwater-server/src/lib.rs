//! Listeners, dispatch, HTTP, health and metrics.
