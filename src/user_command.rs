//! `image-streamer user …`: keeps the users file.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use toml_edit::{Array, DocumentMut, Item, Table, value};
use uuid::Uuid;

use crate::{
    auth::{
        MAX_PASSWORD_BYTES, Right, hash,
        users::{Users, check_name, hash_key, new_key, parse_glob},
    },
    config::Access,
};

/// Passwords that are shorter, in characters, are warned about.
const SHORT_PASSWORD: usize = 12;
/// Who may read the file, if it is new: its owner alone.
const FILE_MODE: u32 = 0o600;

/// What is to be done with the users file.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Adds a user. The password is asked for, or read from the first line of standard input.
    Add {
        /// The name, which may be an email address.
        name: String,
        /// What the user may do.
        #[command(flatten)]
        rights: Rights,
    },
    /// Gives a user another password, which ends the user's logins.
    Passwd {
        /// The user.
        name: String,
    },
    /// Removes a user, whose logins, key and links end with that.
    Remove {
        /// The user.
        name: String,
    },
    /// Lists the users and what each may do.
    List,
    /// Makes a new API key for a user and prints it; the one before ends.
    Key {
        /// The user.
        name: String,
    },
}

/// What a user may do. Globs name sessions: `*` stands for any characters.
#[derive(Debug, Args)]
pub struct Rights {
    /// Sessions that the user may push to.
    #[arg(long, value_name = "GLOB")]
    publish: Vec<String>,
    /// Sessions that the user may watch.
    #[arg(long, value_name = "GLOB")]
    view: Vec<String>,
    /// Sessions that the user may take frames from.
    #[arg(long, value_name = "GLOB")]
    take: Vec<String>,
    /// Sessions whose vehicles the user may command.
    #[arg(long, value_name = "GLOB")]
    command: Vec<String>,
    /// The user may do everything.
    #[arg(long)]
    admin: bool,
}

/// Does it, with the file that `USERS_FILE` names.
///
/// # Errors
/// What was wrong, and then the file is as it was.
pub fn run(command: &UserCommand, access: &Access) -> anyhow::Result<()> {
    let path = access.users_file.as_ref();
    let path = path.context("USERS_FILE is not set: it names the file of the users, like USERS_FILE=users.toml")?;
    let file = UsersFile::open(path)?;
    match command {
        UserCommand::Add { name, rights } => file.add(name, rights),
        UserCommand::Passwd { name } => file.change(name, |user| {
            user["password"] = value(ask_password()?);
            Ok(())
        }),
        UserCommand::Remove { name } => file.remove(name),
        UserCommand::List => file.list(),
        UserCommand::Key { name } => {
            let key = new_key().map_err(anyhow::Error::msg)?;
            file.change(name, |user| {
                user["key"] = value(hash_key(&key));
                Ok(())
            })?;
            eprintln!("This is the key of {name}. It is shown only now: Authorization: Bearer KEY");
            println!("{key}");
            Ok(())
        }
    }
}

/// The file, which nobody else changes meanwhile. Comments and order of what is in it are kept.
struct UsersFile {
    path: PathBuf,
    document: DocumentMut,
    _lock: File,
}

impl UsersFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        // What is replaced is the file itself and not a link to it.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if path.is_symlink() => {
                return Err(error).with_context(|| format!("{} is a link that leads nowhere", path.display()));
            }
            Err(_) => path.to_owned(),
        };
        let directory = directory_of(&path);
        let lock = File::open(directory).with_context(|| format!("{} cannot be opened", directory.display()))?;
        lock.lock().with_context(|| format!("{} cannot be locked", directory.display()))?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        Users::read(&text).map_err(anyhow::Error::msg).with_context(|| path.display().to_string())?;
        let document = text.parse().with_context(|| path.display().to_string())?;
        Ok(Self { path, document, _lock: lock })
    }

    fn add(mut self, name: &str, rights: &Rights) -> anyhow::Result<()> {
        check_name(name).map_err(anyhow::Error::msg)?;
        let lists = [&rights.publish, &rights.view, &rights.take, &rights.command];
        for glob in lists.into_iter().flatten() {
            parse_glob(glob).map_err(anyhow::Error::msg)?;
        }
        ensure!(self.user(name).is_none(), "there is a user {name} already: `user passwd {name}` changes the password");
        let mut user = Table::new();
        // Whoever has the name later inherits nothing.
        user["id"] = value(Uuid::new_v4().to_string());
        user["password"] = value(ask_password()?);
        for (right, globs) in Right::ALL.into_iter().zip(lists) {
            user[right.name()] = value(globs.iter().collect::<Array>());
        }
        user["admin"] = value(rights.admin);
        let users = self.document.entry("users").or_insert_with(|| {
            let mut users = Table::new();
            users.set_implicit(true);
            Item::Table(users)
        });
        users[name] = Item::Table(user);
        self.save()?;
        if !rights.admin && lists.into_iter().all(Vec::is_empty) {
            eprintln!("{name} may use sessions of its own (GET /session) and no others; see `user add --help`.");
        }
        Ok(())
    }

    fn change(mut self, name: &str, change: impl FnOnce(&mut Item) -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self.user(name) {
            Some(user) => change(user)?,
            None => bail!("there is no user {name}: `user list` shows who there is"),
        }
        self.save()
    }

    fn remove(mut self, name: &str) -> anyhow::Result<()> {
        let users = self.document.get_mut("users").and_then(Item::as_table_like_mut);
        ensure!(
            users.and_then(|users| users.remove(name)).is_some(),
            "there is no user {name}: `user list` shows who there is"
        );
        self.save()
    }

    fn list(&self) -> anyhow::Result<()> {
        let users = Users::read(&self.document.to_string()).map_err(anyhow::Error::msg)?;
        let mut rows = vec![["NAME", "ADMIN", "KEY", "PUBLISH", "VIEW", "TAKE", "COMMAND"].map(str::to_owned)];
        for user in users.sorted() {
            let yes = |yes: bool| if yes { "yes" } else { "-" }.to_owned();
            let globs = |right| match user.globs(right).collect::<Vec<_>>().join(" ") {
                globs if globs.is_empty() => "-".to_owned(),
                globs => globs,
            };
            let [publish, view, take, command] = Right::ALL.map(globs);
            rows.push([user.name.clone(), yes(user.admin), yes(user.has_key()), publish, view, take, command]);
        }
        let mut out = io::stdout().lock();
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
                format!("{cell:width$}")
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    fn user(&mut self, name: &str) -> Option<&mut Item> {
        self.document.get_mut("users")?.as_table_like_mut()?.get_mut(name).filter(|user| !user.is_none())
    }

    /// Replaces the file at once: whoever reads it finds the old one or the new one, whole.
    fn save(&self) -> anyhow::Result<()> {
        let mut text = self.document.to_string();
        if text.trim().is_empty() {
            // The server takes a file with nothing in it for a mishap.
            text.push_str("[users]\n");
        }
        // What the server would not read is not written.
        Users::read(&text).map_err(anyhow::Error::msg)?;
        let before = fs::metadata(&self.path).ok();
        let new = self.path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
            file.write_all(text.as_bytes())?;
            if let Some(before) = &before {
                file.set_permissions(Permissions::from_mode(before.mode()))?;
                // Only root can give it away; for others it is theirs already, or the server has to be told.
                let _ = chown(&new, Some(before.uid()), Some(before.gid()));
            }
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&new))).with_context(|| {
            format!("{} cannot be replaced; its directory has to be writable too", self.path.display())
        })
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The hash of a password that is typed without being shown, or of the first line of standard input.
fn ask_password() -> anyhow::Result<String> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        ensure!(
            rpassword::prompt_password("The same again: ")? == password,
            "that was not the same; nothing was changed"
        );
        password
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    ensure!(!password.is_empty(), "the password is empty; nothing was changed");
    ensure!(
        password.len() <= MAX_PASSWORD_BYTES,
        "the password is too long: {MAX_PASSWORD_BYTES} bytes are the limit; nothing was changed"
    );
    if password.chars().count() < SHORT_PASSWORD {
        eprintln!("The password is short: {SHORT_PASSWORD} characters or more are hard to guess.");
    }
    hash(&password).map_err(anyhow::Error::msg)
}
