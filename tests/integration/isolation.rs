//! Sessions beside one another: in any order of their steps, each photo ends with the vector of its bytes.

mod keys;
mod neighbours;
mod open_transactions;
mod pairs;
mod statements;
