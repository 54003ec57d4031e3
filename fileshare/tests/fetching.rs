//! Downloads against providers that fail, lie and charge, each with a real store behind
//! it: what arrives is right or does not arrive, and money stays within its limits.

#[path = "fetching/arrives.rs"]
mod arrives;
#[path = "fetching/charges.rs"]
mod charges;
#[path = "fetching/fails.rs"]
mod fails;
#[path = "fetching/lies.rs"]
mod lies;
#[path = "fetching/names.rs"]
mod names;
#[path = "fetching/providers.rs"]
mod providers;
#[path = "fetching/silent.rs"]
mod silent;
