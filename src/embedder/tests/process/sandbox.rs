//! The acts that a server that was taken over could do.

use std::process::Command;

use crate::embedder::{Embedder, models_directory, onnxruntime, program};

/// The acts that only Landlock refuses: a kernel without it allows them.
const OF_FILES: [&str; 7] = [
    "read /etc/passwd",
    "list the root folder",
    "read another process's memory",
    "write to the models folder",
    "write to /tmp",
    "make a folder",
    "remove a folder",
];

#[test]
fn the_sandbox_refuses_acts_that_the_server_never_needs() {
    let tried = Command::new(program())
        .args(["sandbox", "--models-directory"])
        .arg(models_directory())
        .arg("--onnxruntime")
        .arg(onnxruntime())
        .output()
        .unwrap();
    let output = String::from_utf8(tried.stdout).unwrap();
    println!("{output}");
    let acts = |word: &str| -> Vec<String> {
        let of_word = output.lines().filter_map(|line| line.strip_prefix(word));
        of_word.map(|act| act.trim().to_owned()).collect()
    };
    let restricts_files = output.contains("restricted by Landlock");
    let (refused, allowed) = (acts("refused "), acts("ALLOWED "));
    assert!(output.contains("system calls      restricted"));
    assert!(refused.len() >= if restricts_files { 42 } else { 35 }, "{} acts are refused", refused.len());
    for act in &allowed {
        assert!(!restricts_files && OF_FILES.contains(&act.as_str()), "allowed: {act}");
    }
    assert_eq!(tried.status.success(), allowed.is_empty());
}

#[test]
fn a_server_embeds_in_its_sandbox_and_says_so() {
    let server = Embedder::start("serve");
    server.connect().embed_text("a photo of a cat").unwrap();
    let sandbox = &server.status()["sandbox"];
    assert_eq!(sandbox["system_calls"], true, "{sandbox}");
    assert_eq!(sandbox["no_new_privileges"], true, "{sandbox}");
    // 2 is the mode of a filter (proc_pid_status(5)).
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "{status}");
}
