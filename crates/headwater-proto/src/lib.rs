//! Generated gRPC messages and stubs of the controller service.
