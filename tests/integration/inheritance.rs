//! Nothing of PostgreSQL's reaches the embedder, and a long path stops no server.

use std::fs;

use pg_clip_tests::{TestCluster, run, value};

#[test]
fn the_embedder_inherits_nothing_of_the_servers() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let pid: i32 = value(&mut client, "SELECT pid FROM clip_status");
    let data = cluster.server.data();
    let data = data.to_str().expect("a path in UTF-8");

    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("root or the server's user looks") {
        let target = fs::read_link(entry.expect("a descriptor").path());
        let target = target.map(|path| path.display().to_string()).unwrap_or_default();
        assert!(!target.starts_with(data), "an open file of the data directory: {target}");
        assert!(!target.ends_with("/log"), "the server's log: {target}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the status");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    assert_eq!(field("SigBlk:"), 0, "no signal is blocked");
    // SIGPIPE is ignored by Rust itself; signals 32 and 33 belong to the C library, which lets no program change them.
    const NOT_OURS: u64 = 1 << 12 | 1 << 31 | 1 << 32;
    assert_eq!(field("SigIgn:") & !NOT_OURS, 0, "no signal is ignored");

    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("its score");
    assert_eq!(score.trim(), "1000");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let (parent, group, session) = (fields[1], fields[2], fields[3]);
    assert_eq!((group, session), (parent, parent), "guardian and embedder have a session of their own");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).replace('\0', " ");
    assert_eq!(environment.trim(), "ORT_DISABLE_TELEMETRY=1");
}
