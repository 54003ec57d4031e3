#![no_main]

libfuzzer_sys::fuzz_target!(init: por_fuzz_targets::abort_on_panic(), |data: &[u8]| {
    por_fuzz_targets::records(data);
});
