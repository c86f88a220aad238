//! Random SQL of a superuser and of an ordinary role harms nothing; `cargo xtask fuzz sql` sends more of it.

use pg_clip_tests::hostile::attack;

#[test]
fn five_thousand_hostile_statements_break_nothing() {
    let outcome = attack(5_000, 1, |outcome| outcome.broken.is_empty());
    println!("{outcome}");
    if let Some(broken) = outcome.broken.first() {
        panic!("{broken}");
    }
}
