//! A machine in a file, and the tool that dumps it.

use std::fs;
use std::process::{Command, Output};

use linmap_table::FirstMap;
use linmap_vmsa::{Attributes, Geometry, Granule, Pa, PaRange, Regime, Va, VmidSize};
use serde_json::Value;

pub const RAM: u64 = 0x4000_0000;

pub fn run(arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linmap"));
    command.arg("dump").args(arguments).env_remove("CLICOLOR_FORCE").output().expect("linmap runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A machine in a file: its memory, and the options that name it and its registers.
pub struct Machine {
    folder: tempfile::TempDir,
    /// Aligned like the frames that it stands for.
    pub words: Vec<u64>,
    pub options: Vec<String>,
}

impl Machine {
    pub fn new(map: &FirstMap<32>, len: usize) -> (Self, Pa) {
        let geometry = map.geometry();
        let mut room = vec![0; len / 8 + geometry.granule().entries()];
        let image = map.image(Pa(RAM), &mut room).expect("the map fits");
        let mut words: Vec<u64> = image
            .bytes()
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            .collect();
        words.resize(len / 8, 0);
        let folder = tempfile::tempdir().expect("a folder");
        let memory = format!("{}@{RAM:#x}", folder.path().join("memory").display());
        let mut options = vec!["--memory".to_owned(), memory];
        let mut add = |name: &str, value: u64| options.extend([format!("--{name}"), format!("{value:#x}")]);
        if geometry.regime().is_stage_2() {
            let registers = image.tree().stage_2_registers(7, VmidSize::Bits8).expect("registers");
            add("vttbr", registers.vttbr);
            add("vtcr", registers.vtcr);
            add("hcr", registers.hcr);
        } else {
            let registers = image.tree().registers().expect("registers");
            for (name, value) in [("ttbr0", registers.ttbr0), ("ttbr1", registers.ttbr1)] {
                if let Some(value) = value {
                    add(name, value);
                }
            }
            add("tcr", registers.tcr);
            add("mair", registers.mair);
            let regime = match geometry.regime() {
                Regime::El2 => "el2",
                Regime::El3 => "el3",
                _ => "el1",
            };
            options.extend(["--regime".to_owned(), regime.to_owned()]);
        }
        let root = image.tree().root();
        let machine = Self { folder, words, options };
        machine.write();
        (machine, root)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self) {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::write(self.path("memory"), bytes).expect("the file is written");
    }

    pub fn set(&mut self, at: u64, word: u64) {
        self.words[((at - RAM) / 8) as usize] = word;
        self.write();
    }

    /// The place of the last entry on the walk of `va`.
    pub fn entry_of(&self, va: &str) -> u64 {
        let json = self.json(&["--va", va]);
        let step = json["roots"][0]["walk"]["steps"].as_array().and_then(|steps| steps.last().cloned());
        let step = step.expect("a step");
        number(&step["table"]) + 8 * number(&step["index"])
    }

    pub fn dump(&self, arguments: &[&str]) -> Output {
        let mut all = self.options.clone();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run(&all)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.dump(&[&["--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

pub fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number"),
        value => value.as_u64().expect("a number"),
    }
}

/// 2 MiB of data by pages that a block could replace, text, and a device, from the upper base on.
pub fn usual() -> (Machine, Pa) {
    let geometry = Geometry::new(Granule::K4, 39, 48).expect("a geometry");
    let base = 0u64.wrapping_sub(1 << 39);
    let mut map = FirstMap::<32>::new(geometry);
    let range = |start, len| PaRange::from_len(Pa(start), len).expect("a range");
    map.at(Va(base), range(RAM, 4 << 20), Attributes::KERNEL_DATA).expect("data");
    map.at(Va(base + 0x1000), range(RAM + 0x1000, 0x2000), Attributes::KERNEL_RODATA).expect("data");
    map.at(Va(base + (1 << 30)), range(RAM + 0x1000, 0x2000), Attributes::KERNEL_TEXT).expect("text");
    map.at(Va(base + (2 << 30)), range(0x900_0000, 0x1000), Attributes::DEVICE).expect("a device");
    Machine::new(&map, 4 << 20)
}
