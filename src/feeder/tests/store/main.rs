//! Stores as they misbehave: web servers on loopback, and folders.

mod faults;
mod folder;
mod server;
