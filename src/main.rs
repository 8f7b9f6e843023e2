//! The `image-streamer` binary: arguments, then [`App`].

use std::{ffi::OsString, net::IpAddr, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use image_streamer::{
    androidcam,
    app::App,
    config::{self, Config},
    demo, healthcheck,
    user_command::{self, UserCommand},
};
use tokio::signal::unix::{SignalKind, signal};

/// Frames of every size come and go. glibc's allocator keeps what expired ones leave between others; this one gives it
/// back to the system after some 10 s, from a thread of its own, so in an idle server too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code for a configuration that is not right.
const EXIT_CONFIG: u8 = 2;

/// Relays streams of still images: push pictures over HTTP, watch them live, read them back in order.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Refuses to start without users.
    #[arg(short, long, global = true)]
    auth: bool,
    /// Address to listen on; wins over HOST.
    #[arg(short, long, global = true)]
    ip: Option<IpAddr>,
    /// Port to listen on; wins over PORT.
    #[arg(short, long, global = true)]
    port: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server (also without any command).
    Serve,
    /// Runs the server in memory with a producer inside, and prints links to look at.
    Demo,
    /// Takes the place of AndroidCamStream-Server: serves phones with that app, and the wall.
    Androidcam {
        /// Address to listen on for phones; wins over SOCKETIO_HOST.
        #[arg(short, long)]
        ip: Option<IpAddr>,
        /// Port to listen on for phones; wins over SOCKETIO_PORT [default: 8080].
        #[arg(short, long)]
        port: Option<u16>,
        /// Checks user names and passwords: refuses to start without users (also -auth).
        #[arg(short, long)]
        auth: bool,
        /// Opens the wall in the default browser, on a desktop.
        #[arg(short, long)]
        display: bool,
    },
    /// Keeps the users file, which USERS_FILE names.
    #[command(subcommand)]
    User(UserCommand),
    /// Asks the server that runs here whether it can serve; exit code 0 if so.
    Healthcheck,
}

fn main() -> ExitCode {
    // Chosen here for every TLS connection of the process, rather than by whichever crate comes first.
    let chosen = rustls::crypto::ring::default_provider().install_default();
    debug_assert!(chosen.is_ok(), "nothing else in this process chooses");
    let matches = Arguments::command().after_help(config::help()).get_matches_from(arguments());
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let mut config = match Config::from_env() {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("The configuration is not right; nothing was started:");
            for fault in faults {
                eprintln!("  {fault}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let command = arguments.command.unwrap_or(Command::Serve);
    // The same flags mean the phones' port there.
    if let Command::Androidcam { ip, port, .. } = command {
        config.socketio.ip = ip.or(config.socketio.ip);
        config.socketio.port = port.or(config.socketio.port).or(Some(androidcam::PORT));
    } else {
        config.listen.ip = arguments.ip.unwrap_or(config.listen.ip);
        config.listen.port = arguments.port.unwrap_or(config.listen.port);
    }
    let needs_users = arguments.auth || matches!(command, Command::Androidcam { auth: true, .. });
    if needs_users && config.access.users_file.is_none() {
        eprintln!("-a needs users, and there are none; nothing was started:");
        eprintln!(
            "  USERS_FILE=\"\": expected the users' file, as `USERS_FILE=users.toml image-streamer user add NAME` makes it"
        );
        return ExitCode::from(EXIT_CONFIG);
    }
    let result = match command {
        Command::Serve => actix_web::rt::System::new().block_on(serve(&config)),
        Command::Demo => actix_web::rt::System::new().block_on(serve_demo(config)),
        Command::Androidcam { display, .. } => actix_web::rt::System::new().block_on(serve_phones(&config, display)),
        Command::User(command) => user_command::run(&command, &config.access),
        Command::Healthcheck => healthcheck::check(&config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-streamer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments as they were given, but for `-auth`, as AndroidCamStream-Server had it: that is no row of short flags.
fn arguments() -> impl Iterator<Item = OsString> {
    let mut is_androidcam = false;
    std::env::args_os().map(move |argument| {
        is_androidcam |= argument == "androidcam";
        if is_androidcam && argument == "-auth" { "--auth".into() } else { argument }
    })
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    Ok(App::bind(config).await?.run(told_to_end()?).await?)
}

async fn serve_phones(config: &Config, display: bool) -> anyhow::Result<()> {
    let app = App::bind(config).await?;
    androidcam::introduce(&app, &config.proxy.base_path, display);
    Ok(app.run(told_to_end()?).await?)
}

async fn serve_demo(mut config: Config) -> anyhow::Result<()> {
    config.store.redis_url = None;
    let app = App::bind(&config).await?;
    let session = demo::SESSION.parse()?;
    let root = format!("{}://localhost:{}{}", app.scheme(), app.address().port(), config.proxy.base_path);
    println!("A camera that counts runs on session {session}. Look at it:");
    println!("  the wall           {root}/");
    println!("  live               {root}/stream/{session}");
    println!("  the next picture   {root}/image/{session}     (reload for the one after it)");
    println!("  what is waiting    {root}/stats");
    println!("Push a picture of your own:");
    println!("  curl --data-binary @picture.jpg {root}/image/mine");
    println!("Ctrl-C ends it.");
    let producer = demo::produce(app.hub(), session, config.pictures.nodata_size);
    tokio::select! {
        served = app.run(told_to_end()?) => Ok(served?),
        produced = producer => produced,
    }
}

/// Done on SIGTERM or SIGINT.
fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
