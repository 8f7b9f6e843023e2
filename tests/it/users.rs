//! The users file: the command that keeps it, and the server that reads it.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile,
    process::{Process, program},
    server::command,
    until,
    users::PASSWORD,
};

const QUICK: Duration = Duration::from_secs(10);

#[tokio::test]
async fn users_are_added_listed_changed_and_removed() {
    let file = UsersFile::new();
    file.must(&["add", "ann@example.org", "--publish", "cam-*", "--publish", "door", "--view", "*"], PASSWORD).await;
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, _, short) = file.run(&["add", "bob", "--admin"], "hunter2").await;
    assert!(short.contains("short"), "{short}");
    let (_, _, none) = file.run(&["add", "eve"], PASSWORD).await;
    assert!(none.contains("of its own"), "{none}");
    let list = file.must(&["list"], "").await;
    let rows: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["ann@example.org", "-", "-", "cam-*", "door", "*", "-", "-"]);
    assert_eq!((rows[2][..3].to_vec(), rows.len()), (vec!["bob", "yes", "-"], 4));
    let before = file.read();
    assert!(before.contains("$argon2id$") && !before.contains("hunter2"));

    for (arguments, input, word) in [
        (&["add", "bob"][..], PASSWORD, "already"),
        (&["add", "a b"], PASSWORD, "name"),
        (&["add", "new", "--view", "["], PASSWORD, "glob"),
        (&["add", "new"], "", "empty"),
        (&["passwd", "bob"], "", "empty"),
        (&["passwd", "nobody"], PASSWORD, "no user"),
        (&["remove", "nobody"], "", "no user"),
        (&["key", "nobody"], "", "no user"),
    ] {
        let (succeeded, _, stderr) = file.run(arguments, input).await;
        assert!(!succeeded && stderr.contains(word), "{arguments:?}: {stderr}");
        assert_eq!(file.read(), before, "{arguments:?}");
    }
    fs::write(file.path(), format!("# who may do what\n{before}")).unwrap();
    file.must(&["passwd", "bob"], PASSWORD).await;
    file.must(&["key", "ann@example.org"], "").await;
    file.must(&["remove", "eve"], "").await;
    let list = file.must(&["list"], "").await;
    assert!(list.lines().count() == 3 && list.lines().nth(1).unwrap().contains(" yes "), "{list}");
    assert!(file.read().starts_with("# who may do what\n"), "comments stay");
}

#[tokio::test]
async fn on_a_terminal_the_password_is_asked_for_twice_and_not_shown() {
    // Answers each question on a terminal of its own, and prints what was to be seen there.
    let script = "
import os, pty, sys, termios, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:5])
seen, answers = b'', [answer.encode() for answer in sys.argv[5:]]
while True:
    try:
        more = os.read(terminal, 1000)
    except OSError:
        break
    seen += more
    if answers and more.endswith(b': '):
        # Nobody types before the terminal has been told not to show it.
        while termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.001)
        os.write(terminal, answers.pop(0) + b'\\n')
sys.stdout.write(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";
    let file = UsersFile::new();
    let type_in = async |name: &str, first: &str, second: &str| {
        let mut python = program("python3", "python3");
        python.args(["-c", script, env!("CARGO_BIN_EXE_image-streamer"), "user", "add", name, first, second]);
        python.env("USERS_FILE", file.path());
        Process::start(python).ended_within(QUICK).await
    };
    let (status, seen) = type_in("ann", PASSWORD, PASSWORD).await;
    assert!(status.success() && seen.contains("Password: ") && !seen.contains(PASSWORD), "{seen}");
    let (status, seen) = type_in("bob", PASSWORD, "something else").await;
    assert!(!status.success() && seen.contains("not the same") && !file.read().contains("bob"), "{seen}");
}

#[tokio::test]
async fn many_users_added_at_once_are_all_there() {
    let file = UsersFile::new();
    let names: Vec<_> = (0..12).map(|number| format!("user{number}")).collect();
    futures_util::future::join_all(names.iter().map(|name| file.add(name, &[]))).await;
    let list = file.must(&["list"], "").await;
    assert!(names.iter().all(|name| list.contains(name)), "{list}");
}

#[tokio::test]
async fn without_a_users_file_that_can_be_read_a_server_with_users_does_not_start() {
    let ended = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let (status, output) = Process::start(command(arguments, variables)).ended_within(QUICK).await;
        (status.code(), output)
    };
    let port = ["--port", "0", "--ip", "127.0.0.1"];
    for flag in ["-a", "--auth"] {
        let (code, output) = ended(&[&[flag][..], &port].concat(), &[]).await;
        assert!(code == Some(2) && output.contains("USERS_FILE"), "{output}");
    }
    let file = UsersFile::new();
    let path = file.path();
    let variables = [("USERS_FILE", path.to_str().unwrap())];
    let (code, output) = ended(&port, &variables).await;
    assert!(code == Some(1) && output.contains("users.toml"), "{output}");
    fs::write(&path, "[users.ann]\npassword = \"hunter2\"\n").unwrap();
    let (code, output) = ended(&port, &variables).await;
    assert!(code == Some(1) && output.contains("ann") && output.contains("argon2id"), "{output}");
    assert!(!output.contains("hunter2"));
}

#[tokio::test]
async fn the_file_is_read_again_when_it_changes_and_what_makes_no_sense_changes_nothing() {
    let file = UsersFile::with(&[("ann", &["--view", "*"])]).await;
    let mut server = file.server(&Backend::Memory, &[]).await;
    let status = async |server: &Server, user: &str, password: &str| {
        Answer::to(server.request("GET", "/stats").basic_auth(user, Some(password))).await.status.as_u16()
    };
    assert_eq!((status(&server, "ann", PASSWORD).await, status(&server, "bob", PASSWORD).await), (200, 401));
    file.add("bob", &[]).await;
    until(SOON, "bob gets in", || async { (status(&server, "bob", PASSWORD).await == 200).then_some(()) }).await;
    file.must(&["passwd", "ann"], "another long password").await;
    until(SOON, "the old password ends", || async { (status(&server, "ann", PASSWORD).await == 401).then_some(()) })
        .await;
    assert_eq!(status(&server, "ann", "another long password").await, 200);

    let good = file.read();
    fs::write(file.path(), good.replace("[users.bob]", "[users.bob]\nsecretword hunter2")).unwrap();
    let line = server.process().line_with("users file").await;
    let line =
        if line.contains("stays as it was") { line } else { server.process().line_with("stays as it was").await };
    assert!(!line.contains("hunter2"), "{line}");
    assert_eq!(status(&server, "bob", PASSWORD).await, 200);
    fs::write(file.path(), "").unwrap();
    server.process().line_with("it is empty").await;
    fs::remove_file(file.path()).unwrap();
    server.process().line_with("stays as it was").await;
    assert_eq!(status(&server, "bob", PASSWORD).await, 200);
    fs::write(file.path(), good.split("[users.bob]").next().unwrap()).unwrap();
    until(SOON, "bob is out", || async { (status(&server, "bob", PASSWORD).await == 401).then_some(()) }).await;
}
