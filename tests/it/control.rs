//! The command relay: who drives, what comes to vehicles, and that they stop.

mod bus;
mod examples;
mod faults;
mod lease;
mod rights;
mod small;
mod vicer;
mod wheel;
