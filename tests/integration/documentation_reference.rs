//! The reference is whole: pages name each setting with its default, each function, each view and each of its columns,
//! and nothing that is not there; links lead to pages, files and headings that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pg_clip_tests::{Page, TestCluster, repository};
use postgres::Client;

/// Functions that no user calls.
const PRIVATE: [&str; 11] = [
    "clip_captions",
    "clip_count_queue",
    "clip_count_migrated",
    "clip_count_photos",
    "clip_embedder_status",
    "clip_follow_partitions",
    "clip_forget_next_embedding",
    "clip_is_filled",
    "clip_keep_triggers_enabled",
    "clip_note_gap",
    "clip_watch_partitions",
];

const FUNCTIONS: &str = "SELECT DISTINCT proname::text FROM pg_proc
    JOIN pg_depend ON objid = pg_proc.oid AND classid = 'pg_proc'::regclass AND deptype = 'e'
    WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip')";

/// Of views and tables: name, whether it is a view, and its columns.
const RELATIONS: &str = "SELECT relname::text, relkind = 'v', array_agg(attname::text) FROM pg_class
    JOIN pg_depend ON objid = pg_class.oid AND classid = 'pg_class'::regclass AND deptype = 'e'
    JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
    WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip') AND relkind IN ('v', 'r') GROUP BY 1, 2";

#[test]
fn each_setting_is_documented_with_its_default() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let defaults = "SELECT name, current_setting(name) FROM pg_settings WHERE name LIKE 'clip.%'";
    let rows = client.query(defaults, &[]).expect("the settings are read");
    let there: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let documented = Page::read("docs/settings.md").rows().into_iter().map(|(_, row)| row);
    let documented: BTreeSet<(String, String)> = documented
        .filter(|row| row[0].starts_with("clip."))
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert_eq!(documented, there);
}

#[test]
fn each_function_is_documented() {
    let cluster = TestCluster::shared();
    let mut there = functions(&mut cluster.database().connect());
    for private in PRIVATE {
        assert!(there.remove(private), "{private} is no function");
    }
    let rows = Page::read("docs/functions.md").rows();
    let documented: BTreeSet<String> = rows.iter().flat_map(|(_, row)| names(&row[0])).collect();
    assert_eq!(documented, there);
}

/// A function that is no interface is closed, unless other roles than the extension's owner have to call it: the
/// functions of views and of functions in SQL, which run with the rights of the role that reads or calls; trigger
/// functions, without which the owner of a table could not restore its triggers; and the functions that the event trigger calls, which run with the
/// rights of the role that alters a table.
#[test]
fn private_functions_are_open_only_where_other_roles_need_them() {
    const ROLES: &str = "SELECT proname::text,
            EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
                WHERE grantee = 0 AND privilege_type = 'EXECUTE'),
            prorettype = 'trigger'::regtype OR EXISTS (SELECT FROM pg_depend AS used
                WHERE used.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass) AND used.refclassid = 'pg_proc'::regclass
                    AND used.refobjid = pg_proc.oid)
        FROM pg_proc WHERE proname = ANY ($1)";
    let cluster = TestCluster::shared();
    let private = PRIVATE.map(str::to_owned).to_vec();
    let rows = cluster.database().connect().query(ROLES, &[&private]).expect("the functions are read");
    assert_eq!(rows.len(), PRIVATE.len());
    for row in rows {
        let (name, is_open, is_of_roles): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(is_open, is_of_roles || name == "clip_watch_partitions", "{name}");
    }
}

#[test]
fn each_column_of_each_view_is_documented() {
    let cluster = TestCluster::shared();
    let rows = cluster.database().connect().query(RELATIONS, &[]).expect("the relations are read");
    let there: BTreeMap<String, BTreeSet<String>> = rows
        .iter()
        .filter(|row| row.get(1))
        .map(|row| (row.get(0), row.get::<_, Vec<String>>(2).into_iter().collect()))
        .collect();
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (heading, row) in Page::read("docs/views.md").rows() {
        if heading.starts_with("clip_") {
            documented.entry(heading).or_default().extend(row[0].split(", ").map(str::to_owned));
        }
    }
    assert_eq!(documented, there);
}

#[test]
fn every_name_is_that_of_an_object() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let mut there = functions(&mut client);
    let rows = client.query(RELATIONS, &[]).expect("the relations are read");
    there.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    // The change log names objects of earlier releases.
    for page in Page::all().into_iter().filter(|page| page.path != "CHANGELOG.md") {
        for name in names(page.text()) {
            assert!(there.contains(&name), "{}: there is no {name}", page.path);
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_str(), page.anchors())).collect();
    let mut links = 0;
    for page in &pages {
        for link in page.links() {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(&page.path).parent().expect("a page has a folder");
            let path = if file.is_empty() { PathBuf::from(&page.path) } else { resolved(&folder.join(file)) };
            assert!(repository().join(&path).exists(), "{}: {link} leads to no file", page.path);
            if let Some(anchor) = anchor {
                let there = anchors.get(path.to_str().expect("UTF-8"));
                let there = there.unwrap_or_else(|| panic!("{}: {link} leads to no page", page.path));
                assert!(there.contains(anchor), "{}: {link} leads to no heading", page.path);
            }
            links += 1;
        }
    }
    assert!(links > 60, "{links} links");
}

fn functions(client: &mut Client) -> BTreeSet<String> {
    let rows = client.query(FUNCTIONS, &[]).expect("the functions are read");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The words that begin with `clip_`; not those of tests, which stand after a colon, nor `clip_watch_` before a `%`.
fn names(text: &str) -> BTreeSet<String> {
    let is_of_a_word =
        |character: char| character.is_ascii_alphanumeric() || character == '_' || character == ':';
    let words = text.split(|character| !is_of_a_word(character));
    words
        .filter(|word| word.starts_with("clip_") && !word.ends_with('_'))
        .map(|word| word.trim_end_matches(':').to_owned())
        .collect()
}

/// A path without `..`.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}
