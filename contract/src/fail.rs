//! Failing: a panic discards the call with all its effects, and its message starts with a
//! stable code of `por_types::interface::code`.

use std::fmt;

use por_types::AmountError;
use por_types::interface::code;

/// Stops the call.
pub fn stop(code: &str, what: fmt::Arguments<'_>) -> ! {
    #[cfg(target_family = "wasm")]
    near_sdk::env::panic_str(&format!("{code}: {what}"));
    // The SDK would also print it, which is much when refusals are what is tested.
    #[cfg(not(target_family = "wasm"))]
    panic!("{code}: {what}")
}

/// `fail!(code::X, "what to do about {it}")`.
macro_rules! fail {
    ($code:expr, $($text:tt)+) => {
        $crate::fail::stop($code, format_args!($($text)+))
    };
}

/// `require!(condition, code::X, "what to do about {it}")`.
macro_rules! require {
    ($condition:expr, $code:expr, $($text:tt)+) => {
        if !$condition {
            $crate::fail::fail!($code, $($text)+);
        }
    };
}

pub(crate) use {fail, require};

/// Sums of real money cannot leave 128 bits; if one does, the call must not go on.
pub trait OrStop {
    type Value;
    fn or_stop(self) -> Self::Value;
}

impl<T> OrStop for Result<T, AmountError> {
    type Value = T;
    fn or_stop(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => fail!(code::OVERFLOW, "{error}; report this"),
        }
    }
}
