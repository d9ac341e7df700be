//! `linmap`, the host tool: running it from the workspace, and installing it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::{Workspace, cargo, write_atomically};

/// The options of `linmap`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct ToolArgs {
    /// What linmap is given: try --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// For `install --help`.
pub const INSTALL_HELP: &str = "\
Without --prefix the program goes where `cargo install` puts programs, the plugin of `linmap record`
into the folder lib beside that, and the rest below XDG_DATA_HOME, which is ~/.local/share unless
set. With it they go to DIR/bin, DIR/lib and DIR/share.";

/// The options of `install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// Install below this folder
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
}

/// The run of cargo that builds the tool for tests. Its profile is that of the tests, so that the
/// crates are compiled once.
pub fn build(workspace: &Workspace) -> Command {
    let mut build = Command::new(cargo());
    build.args(["build", "--profile", "test", "--package", "linmap-cli", "--bin", "linmap"]);
    build.args(["--package", RECORDER, "--lib"]);
    build.current_dir(&workspace.root);
    build
}

/// The package of the plugin that `linmap record` loads. It is found beside the program.
const RECORDER: &str = "linmap-record";

/// The plugin's file.
const PLUGIN: &str = "liblinmap_record.so";

/// The program that [`build`] makes.
pub fn of_tests(workspace: &Workspace) -> PathBuf {
    workspace.target.join("debug/linmap")
}

/// The tool for another command: what `LINMAP_TOOL` names, as in tests, or a new build.
pub fn for_others(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LINMAP_TOOL") {
        return Ok(path.into());
    }
    let mut build = build(workspace);
    if !process::status(build.arg("--quiet"))?.success() {
        bail!("building linmap failed: {}", process::line(&build));
    }
    Ok(of_tests(workspace))
}

/// `cargo xtask linmap`: builds the tool as it is released, and runs it here.
pub fn run(workspace: &Workspace, arguments: &ToolArgs) -> Result<ExitCode> {
    let mut linmap = Command::new(build_released(workspace)?);
    let status = process::start(linmap.args(&arguments.arguments))?.wait().context("waiting for linmap")?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("linmap ended with {status}"),
    }
}

/// Builds the tool and its plugin as they are released. Returns the program.
pub fn build_released(workspace: &Workspace) -> Result<PathBuf> {
    let manifest = workspace.root.join("Cargo.toml");
    let mut build = Command::new(cargo());
    build.args(["build", "--quiet", "--release", "--package", "linmap-cli", "--bin", "linmap"]);
    build.args(["--package", RECORDER, "--lib"]);
    build.arg("--manifest-path").arg(manifest);
    if !process::status(&mut build)?.success() {
        bail!("building linmap failed: {}", process::line(&build));
    }
    Ok(workspace.target.join("release/linmap"))
}

/// `cargo xtask install`.
pub fn install(workspace: &Workspace, arguments: &InstallArgs) -> Result<ExitCode> {
    let mut install = Command::new(cargo());
    install.args(["install", "--locked", "--path"]).arg(workspace.root.join("cli"));
    let (program, data) = match &arguments.prefix {
        Some(prefix) => {
            install.arg("--root").arg(prefix);
            (prefix.join("bin/linmap"), prefix.join("share"))
        }
        None => (cargo_root()?.join("bin/linmap"), data_home()?),
    };
    if !process::status(&mut install)?.success() {
        bail!("installing linmap failed: {}", process::line(&install));
    }
    println!("{}", program.display());
    let plugin = install_plugin(workspace, &program)?;
    println!("{} (the plugin of linmap record)", plugin.display());
    for (shell, place) in COMPLETIONS {
        let path = data.join(place);
        let script = process::capture(Command::new(&program).args(["completions", shell]))?;
        write_atomically(&path, script.as_bytes())?;
        println!("{} (completions of {shell})", path.display());
    }
    let pages = data.join("man/man1");
    process::capture(Command::new(&program).arg("man").arg(&pages))?;
    println!("{} (manual pages)", pages.join("linmap*.1").display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the plugin and puts it where `program` looks for it: cargo installs programs alone.
fn install_plugin(workspace: &Workspace, program: &Path) -> Result<PathBuf> {
    let mut build = Command::new(cargo());
    build.args(["build", "--locked", "--release", "--package", RECORDER, "--lib"]);
    build.current_dir(&workspace.root);
    if !process::status(&mut build)?.success() {
        bail!("building the plugin failed: {}", process::line(&build));
    }
    let built = workspace.target.join("release").join(PLUGIN);
    let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let prefix = program.parent().and_then(Path::parent).context("the program has no folder")?;
    let path = prefix.join("lib").join(PLUGIN);
    write_atomically(&path, &bytes)?;
    Ok(path)
}

/// Where shells look for the completions of a program, below the folder for data.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/linmap"),
    ("zsh", "zsh/site-functions/_linmap"),
    ("fish", "fish/vendor_completions.d/linmap.fish"),
];

/// Where `cargo install` puts programs, as its manual says, apart from what a configuration file of
/// cargo's may say.
fn cargo_root() -> Result<PathBuf> {
    match folder("CARGO_INSTALL_ROOT").or_else(|| folder("CARGO_HOME")) {
        Some(root) => Ok(root),
        None => Ok(home()?.join(".cargo")),
    }
}

fn data_home() -> Result<PathBuf> {
    match folder("XDG_DATA_HOME") {
        Some(data) => Ok(data),
        None => Ok(home()?.join(".local/share")),
    }
}

fn home() -> Result<PathBuf> {
    folder("HOME").context("HOME is not set; say where with --prefix DIR")
}

fn folder(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    Path::new(&value).is_absolute().then(|| value.into())
}
