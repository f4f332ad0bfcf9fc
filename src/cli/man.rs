//! `onlyonce man`: the manual page, from the definition of the command line.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, output};

/// One page for all commands: the program's, followed by the `--help` text of each command.
pub(super) fn man() -> ExitCode {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut out = Vec::new();
    if let Err(error) = head(&clap_mangen::Man::new(program.clone()), &mut out) {
        return output::not_written(&error);
    }
    let mut page = String::from_utf8_lossy(&out).into_owned();
    program.get_subcommands().for_each(|command| section(&mut page, command));
    page.push_str(MAN_END);
    output::print(&page)
}

/// Without the commands, which follow on the same page.
fn head(man: &clap_mangen::Man, out: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)
}

const MAN_END: &str = "\
.SH \"EXIT STATUS\"
.TP
.B 0
Success.
.TP
.B 1
Failed while running; of verify: an effect was doubled, or an answer was another caller's.
.TP
.B 2
Bad usage, or an invalid configuration; of check --strict: a warning.
.SH ENVIRONMENT
.TP
.B ONLYONCE_CONFIG
The configuration file, where none is named. Empty counts as not set.
.TP
.B ONLYONCE_ADMIN_TOKEN
The token of the admin listener, before that of the configuration.
.SH FILES
.TP
.I onlyonce.toml
The configuration file in the current folder, where none is named.
.SH \"SEE ALSO\"
The files name environment variables of their own, as in \"env:NAME\". All keys: onlyonce schema.
";

fn section(page: &mut String, command: &clap::Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_uppercase();
    page.push_str(&format!(".SH \"{name}\"\n.nf\n"));
    for line in command.clone().render_long_help().to_string().lines() {
        // A line that begins with a dot or quote is a request, and a backslash begins an escape (groff(7)).
        page.push_str(&format!("\\&{}\n", line.replace('\\', "\\e")));
    }
    page.push_str(".fi\n");
    command.get_subcommands().for_each(|command| section(page, command));
}
