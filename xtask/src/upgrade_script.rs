//! The script that brings the last release's SQL to the one that is being made.
//!
//! The changes to the last release's objects are found by comparing the two install scripts:
//!
//! * functions, procedures and views are replaced in place where they differ, so that objects that depend on them
//!   stay;
//! * a table, index or event trigger that the last release did not have is created;
//! * comments, privileges and marks for dumps are repeated only where they differ from those of the last release:
//!   an administrator's later grants stay.
//!
//! The rest is written by hand, in `sql/upgrade/`: `before.sql` changes tables and drops what stands in the way,
//! `after.sql` drops what is left over and brings the users' own objects to the new rules. `sql/README.md` says what a
//! change of a table needs; a test compares the catalogs.

use std::collections::HashSet;

use anyhow::{Result, bail};

use crate::sql_statement::{Kind, Statement, statements};

/// `last` and `next` are install scripts, `before` and `after` the statements that are written by hand.
pub(crate) fn upgrade_script(last: &str, next: &str, before: &str, after: &str) -> Result<String> {
    let last = statements(last);
    let by_hand = statements(before);
    let dropped: HashSet<&str> = by_hand.iter().flat_map(names_dropped).collect();
    let mut script = before.trim_end().to_owned() + "\n\n";
    for statement in statements(next) {
        if by_hand.contains(&statement) {
            continue;
        }
        if let Some(text) = step(&statement, &last, &dropped)? {
            script += &text;
            script += ";\n\n";
        }
    }
    Ok(script + after.trim_end() + "\n")
}

fn names_dropped(statement: &Statement) -> Vec<&str> {
    match statement.kind() {
        Kind::Drop(names) => names,
        _ => Vec::new(),
    }
}

/// The statement of the upgrade script for one of the next release's install script, where one is needed.
fn step(next: &Statement, last: &[Statement], dropped: &HashSet<&str>) -> Result<Option<String>> {
    let stands = last.iter().any(|statement| statement.words == next.words);
    let text = || next.text.clone();
    Ok(match next.kind() {
        Kind::Replaceable(name) if !stands || dropped.contains(name) => {
            Some(next.text.replacen("CREATE ", "CREATE OR REPLACE ", 1))
        }
        Kind::Remark(name) if !stands || dropped.contains(name) => Some(text()),
        Kind::Lasting(name) => {
            let is_there = last.iter().any(|statement| statement.kind() == Kind::Lasting(name));
            (!is_there || dropped.contains(name)).then(text)
        }
        Kind::Check if !stands => Some(text()),
        Kind::Replaceable(_) | Kind::Remark(_) | Kind::Check => None,
        Kind::Drop(_) | Kind::Other => {
            bail!("an install script has a statement that no upgrade can take over: {}", next.text)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::upgrade_script;

    const LAST: &str = "
        CREATE TABLE clip_t (a int);
        GRANT SELECT ON clip_t TO PUBLIC;
        CREATE INDEX clip_i ON clip_t (a);
        COMMENT ON INDEX clip_i IS 'the same';
        CREATE FUNCTION clip_same() RETURNS int AS $$1$$ LANGUAGE sql;
        CREATE FUNCTION clip_changed() RETURNS int AS $$1$$ LANGUAGE sql;
        COMMENT ON FUNCTION clip_changed() IS 'the same';";

    fn upgrade(next: &str, before: &str) -> Vec<String> {
        let script = upgrade_script(LAST, next, before, "-- the end").expect("a script");
        script.split(";\n").map(|statement| statement.trim().to_owned()).collect()
    }

    #[test]
    fn objects_that_stay_the_same_are_left_out() {
        assert_eq!(upgrade(LAST, "-- first"), ["-- first\n\n-- the end"]);
    }

    #[test]
    fn changed_objects_are_replaced_and_new_ones_created() {
        let next = "
            CREATE TABLE clip_t (a int, b int);
            GRANT SELECT ON clip_t TO PUBLIC;
            CREATE TABLE clip_new (a int);
            GRANT SELECT ON clip_new TO PUBLIC;
            CREATE FUNCTION clip_changed() RETURNS int AS $$2$$ LANGUAGE sql;
            COMMENT ON FUNCTION clip_changed() IS 'the same';";
        let expected = [
            "ALTER TABLE clip_t ADD COLUMN b int",
            "CREATE TABLE clip_new (a int)",
            "GRANT SELECT ON clip_new TO PUBLIC",
            "CREATE OR REPLACE FUNCTION clip_changed() RETURNS int AS $$2$$ LANGUAGE sql",
            "-- the end",
        ];
        assert_eq!(upgrade(next, "ALTER TABLE clip_t ADD COLUMN b int;"), expected);
    }

    #[test]
    fn objects_that_are_dropped_by_hand_are_made_anew() {
        let expected = [
            "DROP INDEX clip_i",
            "CREATE INDEX clip_i ON clip_t (a)",
            "COMMENT ON INDEX clip_i IS 'the same'",
            "-- the end",
        ];
        assert_eq!(upgrade(LAST, "DROP INDEX clip_i;"), expected);
    }

    #[test]
    fn a_statement_of_no_known_kind_is_refused() {
        assert!(upgrade_script(LAST, "INSERT INTO clip_t VALUES (1);", "", "").is_err());
    }
}
