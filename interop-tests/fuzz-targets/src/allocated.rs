//! Counts what a thread holds, so that a target can say how much memory some bytes cost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes held, and the most since the last [`peak`] began. Both may go below zero: memory may
    /// be freed by another thread than the one that asked for it.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: i64) {
    // A thread that ends frees memory after its locals are gone.
    let _ = HELD.try_with(|held| {
        let (now, peak) = held.get();
        let now = now + bytes;
        held.set((now, peak.max(now)));
    });
}

#[allow(unsafe_code, reason = "an allocator is unsafe; this one only counts")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64);
        count(-(layout.size() as i64));
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The result of `f`, and the most bytes that it held at once.
pub fn peak<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let value = f();
    let (_, peak) = HELD.with(Cell::get);
    (value, u64::try_from(peak - before).unwrap_or_default())
}
