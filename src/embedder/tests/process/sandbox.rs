//! The acts that a server that was taken over could do.

use std::process::Command;

use crate::embedder::{Embedder, MODEL, models_directory, onnxruntime, program};

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
    assert_acts_are_refused("cpu");
}

/// The acts of a kernel without Landlock are the same, but for a socket that has a place in the file system.
#[test]
fn the_sandbox_of_a_gpu_refuses_these_acts_too() {
    assert_acts_are_refused("cuda");
}

fn assert_acts_are_refused(execution_provider: &str) {
    let tried = Command::new(program())
        .args(["sandbox", "--execution-provider", execution_provider, "--models-directory"])
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
    assert!(refused.len() >= if restricts_files { 43 } else { 35 }, "{} acts are refused", refused.len());
    for act in &allowed {
        let of_files = OF_FILES.contains(&act.as_str())
            || (execution_provider == "cuda" && act == "listen on a Unix socket");
        assert!(!restricts_files && of_files, "allowed: {act}");
    }
    assert_eq!(tried.status.success(), allowed.is_empty());
}

#[test]
fn a_server_embeds_in_its_sandbox_and_says_so() {
    assert_embeds_in_sandbox("cpu");
}

#[test]
fn a_server_that_is_asked_for_a_gpu_embeds_in_the_sandbox_of_one_and_says_so() {
    assert_embeds_in_sandbox("cuda");
}

fn assert_embeds_in_sandbox(execution_provider: &str) {
    let more = ["--execution-provider", execution_provider];
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &more);
    server.connect().embed_text("a photo of a cat").unwrap();
    let sandbox = &server.status()["sandbox"];
    assert_eq!(sandbox["system_calls"], true, "{sandbox}");
    assert_eq!(sandbox["no_new_privileges"], true, "{sandbox}");
    assert_eq!(sandbox["gpu_devices"] == true, execution_provider == "cuda", "{sandbox}");
    // 2 is the mode of a filter (proc_pid_status(5)).
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "{status}");
}
