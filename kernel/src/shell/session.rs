//! What happens once the linear map is live.

use crate::arch::psci::power_off;
use crate::end::fail::fail;
use crate::kexec::archive;
use crate::kexec::payload::Payload;
use crate::report;
use crate::shell::interactive;
use crate::shell::owners::Owners;
use crate::shell::script;

/// Runs a script, the shell or the payload, as the command line and the archive ask.
pub fn run(owners: &mut Owners) -> ! {
    let psci = owners.platform.psci;
    let generation = owners.platform.generation;
    let archive = archive::open(&owners.platform, &owners.memory);
    // A script is for the first generation.
    if let Ok(Some(archive)) = &archive
        && let Some(script) = archive.find("script").filter(|_| generation == 0)
    {
        script::run(owners, script.data);
    }
    if owners.platform.command_line.get("linmap.shell").is_some() {
        interactive::run(owners);
    }
    if let Err(error) = archive {
        fail(error.kind(), &error, psci);
    }
    match Payload::choose(&owners.platform, &owners.memory) {
        Ok(Some(_)) => {
            let Err(error) = owners.hand_over().run();
            fail(error.kind(), &error, psci)
        }
        Ok(None) => {
            report!("state=done generation={generation}");
            power_off(psci)
        }
        Err(error) => fail(error.kind(), &error, psci),
    }
}
