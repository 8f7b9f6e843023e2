//! Programs that log in by name and password, over HTTPS.

use std::{fs, process::Command, time::Duration};

use crate::harness::{
    Answer, SOON, Server, UsersFile,
    process::{Process, program},
    tls::CertificateFiles,
    until,
    users::PASSWORD,
};

/// How long a program may take for what it does here.
const DONE: Duration = Duration::from_secs(60);
const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");

/// A server over HTTPS with a user who may do everything with `cam`, and nothing else.
async fn server(files: &CertificateFiles) -> (UsersFile, Server) {
    let users =
        UsersFile::with(&[("ann", &["--publish", "cam", "--view", "cam", "--take", "cam"]), ("root", &["--admin"])])
            .await;
    let path = users.path();
    let server = files.server(&[("USERS_FILE", path.to_str().unwrap()), ("STALE_AFTER", "3")]).await;
    (users, server)
}

/// The URL with name and password in it.
fn with_login(url: &str, password: &str) -> String {
    url.replace("https://", &format!("https://ann:{}@", password.replace(' ', "%20")))
}

/// Whether a program ended well, and what it printed.
async fn run(mut command: Command) -> (bool, String) {
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let (status, output) = Process::start(command).ended_within(DONE).await;
    (status.success(), output)
}

#[tokio::test]
async fn curl_logs_in_by_option_url_key_and_cookie() {
    let files = CertificateFiles::new();
    let (users, server) = server(&files).await;
    let curl = async |arguments: &[&str]| {
        let mut curl = program("curl", "curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--cacert", &files.ca()]);
        curl.args(["-w", "%{http_code}", "-o", "/dev/null"]).args(arguments);
        run(curl).await.1
    };
    let (url, body, login) = (server.url("/image/cam"), format!("@{PHOTO}"), format!("ann:{PASSWORD}"));
    let key = users.must(&["key", "ann"], "").await;
    let bearer = format!("Authorization: Bearer {}", key.trim());
    // The key is known to the server when it has read the file again.
    until(SOON, "the key counts", || async {
        (curl(&["-H", &bearer, "--data-binary", &body, &url]).await == "200").then_some(())
    })
    .await;
    assert_eq!(curl(&["--data-binary", &body, &url]).await, "401");
    assert_eq!(curl(&["-u", &login, "--data-binary", &body, &url]).await, "200");
    assert_eq!(curl(&["-u", "ann:wrong", "--data-binary", &body, &url]).await, "401");
    assert_eq!(curl(&["-T", PHOTO, &with_login(&url, PASSWORD)]).await, "200");
    assert_eq!(curl(&["-u", &login, "-T", PHOTO, "-H", "Expect: 100-continue", &url]).await, "200");
    assert_eq!(curl(&["--anyauth", "-u", &login, "-H", "Expect: 100-continue", "-T", PHOTO, &url]).await, "200");
    assert_eq!(curl(&["-u", &login, "--data-binary", &body, &server.url("/image/other")]).await, "403");
    let jar = files.path("jar");
    let jar = jar.to_str().unwrap();
    let form = format!("password={PASSWORD}");
    assert_eq!(curl(&["--cookie-jar", jar, "-d", "name=ann", "-d", &form, &server.url("/login")]).await, "303");
    let kept = fs::read_to_string(jar).unwrap();
    assert!(kept.contains("#HttpOnly_localhost\tFALSE\t/\tTRUE\t"), "over HTTPS the cookie is Secure: {kept}");
    assert_eq!(curl(&["--cookie", jar, &server.url("/snapshot/cam")]).await, "200");
}

#[tokio::test]
async fn python_logs_in_by_basic() {
    let files = CertificateFiles::new();
    let (_users, server) = server(&files).await;
    let script = "
import ssl, sys, urllib.request, urllib.error
ca, photo, url, password = sys.argv[1:]
picture = open(photo, 'rb').read()
def opener(password):
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, 'ann', password)
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    basic = urllib.request.HTTPBasicAuthHandler(passwords)
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), https, basic)
right = opener(password)
assert right.open(url, data=picture, timeout=20).status == 200
assert right.open(url, timeout=20).read() == picture
try:
    opener('wrong').open(url, timeout=20)
except urllib.error.HTTPError as error:
    assert error.code == 401, error
else:
    raise AssertionError('it let in who it should not')
print('done')
";
    let mut python = program("python3", "python3");
    python.args(["-c", script, &files.ca(), PHOTO, &server.url("/image/cam"), PASSWORD]);
    assert_eq!(run(python).await, (true, "done".into()));
}

#[tokio::test]
async fn ffmpeg_pushes_and_records_with_name_and_password_in_the_url() {
    const FRAMES: usize = 15;
    let files = CertificateFiles::new();
    let (_users, server) = server(&files).await;
    let ffmpeg = || {
        let mut ffmpeg = program("ffmpeg", "ffmpeg");
        ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]);
        ffmpeg
    };
    let verified = ["-tls_verify", "1", "-ca_file", &files.ca()].map(str::to_owned);
    let camera = |url: &str| {
        let mut camera = ffmpeg();
        camera.args(["-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10", "-frames:v", &FRAMES.to_string()]);
        camera.args(&verified).args(["-f", "mpjpeg", url]);
        camera
    };
    let mut recorder = ffmpeg();
    recorder.args(&verified).args(["-rw_timeout", "20000000", "-f", "mpjpeg", "-i"]);
    recorder.arg(with_login(&server.url("/stream/cam?repeat=0&offline=close"), PASSWORD));
    recorder.args(["-c", "copy", "-f", "image2"]).arg(files.path("%d.jpg"));
    let recorder = tokio::spawn(run(recorder));
    let viewers = async || {
        let metrics = Answer::to(server.request("GET", "/metrics").basic_auth("root", Some(PASSWORD))).await;
        metrics.text().contains("\nimage_streamer_viewers 1\n").then_some(())
    };
    until(SOON, "it watches", viewers).await;
    let (ended_well, output) = run(camera(&with_login(&server.url("/stream/cam"), PASSWORD))).await;
    assert!(ended_well, "{output}");
    let (ended_well, output) = recorder.await.unwrap();
    assert!(ended_well, "{output}");
    assert!(files.path(&format!("{FRAMES}.jpg")).is_file(), "each frame was pushed and recorded");
    assert!(!files.path(&format!("{}.jpg", FRAMES + 1)).is_file());

    for refused in [
        server.url("/stream/cam"),
        with_login(&server.url("/stream/cam"), "wrong"),
        with_login(&server.url("/stream/other"), PASSWORD),
    ] {
        run(camera(&refused)).await;
    }
    let stats = Answer::to(server.request("GET", "/stats").basic_auth("root", Some(PASSWORD))).await.json();
    assert_eq!((&stats["numImages"], &stats["numSessions"]), (&FRAMES.into(), &1.into()), "nothing of those came in");
    let mut stranger = ffmpeg();
    stranger.args(&verified).args(["-f", "mpjpeg", "-i"]).arg(server.url("/stream/cam?offline=close"));
    let (ended_well, output) = run({
        stranger.args(["-f", "null", "-"]);
        stranger
    })
    .await;
    assert!(!ended_well && output.contains("401"), "{output}");
}
