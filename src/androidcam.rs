//! `image-streamer androidcam`: what AndroidCamStream-Server was started for, by its command line.

use crate::app::App;

/// The port that the app asks for unless it is told otherwise.
pub const PORT: u16 = 8080;

/// Says where phones connect to, and where they are seen; with `display` in the default browser too.
pub fn introduce(app: &App, base_path: &str, display: bool) {
    let wall = format!("{}://localhost:{}{base_path}/", app.scheme(), app.address().port());
    if let Some(address) = app.phones() {
        println!("Phones connect to this machine's address, port {}.", address.port());
    }
    println!("They are seen at {wall}");
    if !display {
        return;
    }
    if !has_desktop() {
        println!("There is no desktop here to open it on.");
        return;
    }
    // Some browsers end only when they are closed.
    let opened = std::thread::Builder::new().name("browser".into()).spawn(move || {
        if let Err(error) = webbrowser::open(&wall) {
            println!("No browser could be opened: {error}");
        }
    });
    if let Err(error) = opened {
        println!("No browser could be opened: {error}");
    }
}

/// Whether something that is opened would be seen.
fn has_desktop() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(all(unix, not(target_os = "macos"))) || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"].into_iter().any(is_set)
}
