//! pg_clip in a read-only folder of its own, beside a server that has none of its files.

use std::fs;
use std::process::Command;

use pg_clip_tests::{PATIENCE, ServerCopy, TestCluster, demo_photo, run, value, wait_until};

#[test]
fn it_runs_from_a_read_only_folder() {
    let copy = ServerCopy::of_the_tested("own-folder");
    let folder = copy.pg_clip.to_str().expect("a path in UTF-8");
    assert!(!copy.pkglibdir().join("pg_clip.so").exists(), "the server has the library");
    let (libraries, extensions) = (format!("{folder}/lib:$libdir"), format!("{folder}/share:$system"));
    let mut settings = vec![("shared_preload_libraries", "pg_clip"), ("dynamic_library_path", &libraries)];
    if copy.postgres.major >= 18 {
        settings.push(("extension_control_path", &extensions));
    } else {
        copy.link_into_server(&copy.pg_clip.join("lib"), &copy.pg_clip.join("share/extension"));
    }
    let cluster = TestCluster::on(&copy.postgres, &settings);
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => 'async')",
    );
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is inserted");
    wait_until("the queue embeds it", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") == 1
    });
    let nearest =
        "SELECT image_id::int FROM image_embeddings ORDER BY embedding <=> clip_embed_text('pizza') LIMIT 1";
    assert_eq!(value::<i32>(&mut client, nearest), 1);

    let processes = cluster.processes();
    let guardian = processes.iter().find(|process| process.command_line.contains(" guard "));
    let line = &guardian.expect("a guardian runs").command_line;
    let own = fs::canonicalize(&copy.pg_clip).expect("the folder is there");
    for part in ["pg_clip_embedder", "libonnxruntime.so", "models"] {
        let path = line.split([' ', '=']).find(|word| word.ends_with(&format!("/{part}")));
        let path = path.unwrap_or_else(|| panic!("{part} is not in {line}"));
        assert!(fs::canonicalize(path).expect("a path that is there").starts_with(&own), "{line}");
    }
}

#[test]
fn a_setting_comes_before_the_folder_beside_the_library() {
    let copy = ServerCopy::of_the_tested("chosen-program");
    let chosen = copy.copy_program();
    let program = chosen.to_str().expect("a path in UTF-8");
    let settings = [("shared_preload_libraries", "pg_clip"), ("clip.embedder_program", program)];
    copy.link_into_server(&copy.pg_clip.join("lib"), &copy.pg_clip.join("share/extension"));
    let cluster = TestCluster::on(&copy.postgres, &settings);
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('a cat')");
    let runs = |program: &str| {
        cluster.processes().iter().any(|process| process.command_line.starts_with(&format!("{program} ")))
    };
    assert!(runs(program), "{:?}", cluster.processes());

    run(&mut client, "ALTER SYSTEM SET clip.embedder_program = '/nowhere/pg_clip_embedder'");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_until("the log names the program that is not there", PATIENCE, || {
        cluster.log().contains("No such file or directory (os error 2): /nowhere/pg_clip_embedder")
    });
    run(&mut client, "ALTER SYSTEM RESET clip.embedder_program");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_until("the chosen program runs again", PATIENCE, || runs(program));
}

#[test]
fn the_command_line_needs_no_pg_config() {
    let copy = ServerCopy::of_the_tested("command-line");
    // In a folder that has nothing but the link.
    let program = copy.pg_clip.join("bin/pg_clip_embedder");
    assert!(!program.with_file_name("pg_config").exists());
    let said = |arguments: &[&str]| {
        let output = Command::new(&program).args(arguments).env_clear().output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (whole, out, err) = said(&["check", "demo"]);
    assert!(whole && out.contains("dimensions      512"), "{out}{err}");
    let (whole, out, err) = said(&["list"]);
    assert!(whole && out.lines().any(|line| line.starts_with("demo ")), "{out}{err}");

    let alone = copy.pg_clip.parent().expect("a folder has a parent").join("alone");
    fs::copy(&program, &alone).expect("the program is copied");
    let said = |arguments: &[&str]| {
        let output = Command::new(&alone).args(arguments).env_clear().output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let err = said(&["check", "demo"]);
    assert_eq!(err, "ERROR:  models is not beside this program\nHINT:  Give --models-directory.\n");
    let err = said(&["list"]);
    let installer = alone.with_file_name("pg_clip_models");
    let complaint = format!("ERROR:  {} cannot be started: No such file or directory", installer.display());
    assert!(err.starts_with(&complaint) && err.contains("HINT:  It is installed together with"), "{err}");
}
