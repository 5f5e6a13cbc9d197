//! Records of the controller. The body is the controller's own, which its tests replay on records of released stores.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    headwater_controller::fuzz::fuzz_records(bytes);
});
