//! What changes between loading a payload and entering it is noticed: before anything is moved,
//! when nothing has changed yet, or at the destination after the move.

use linmap_tests::{Boot, Outcome, PlacedBoot, RAM, Record, Tree, archive, number, own_image};

/// Two CPUs, so that there are two lists, and EL2's stub goes along.
const OPTIONS: &str = "--memory 1G --cpus 2 --cpu cortex-a72 --el 2 --payload linux";

fn run(script: &str) -> Outcome {
    let outcome = Boot::new(OPTIONS).with("--script", script).until_linux_starts().run();
    outcome.expect_success();
    outcome
}

/// Where things were in a boot that loaded the payload in place first, and scattered then.
struct Addresses {
    /// Where each segment was in place: image, initrd, device tree.
    in_place: [u64; 3],
    /// Where the first page of the image waited.
    image_page: u64,
    /// Where the device tree waited.
    dtb_page: u64,
    /// Where the image goes, when scattered.
    image: u64,
    /// The first frame of the move list.
    list: u64,
    /// The relocation code.
    control: u64,
    /// The root of the transitional linear map. The table that its first entry leads to is in the
    /// frame below.
    root: u64,
}

impl Addresses {
    /// Boots are the same each time, as far as addresses are concerned.
    fn read() -> Self {
        let outcome =
            run("kexec load; kexec plan; kexec unload; kexec load --scattered; kexec plan; kexec list; \
             kexec unload");
        let segments: Vec<&Record> = outcome.records.iter().filter(|r| r.contains_key("segment")).collect();
        let names: Vec<&str> = segments.iter().filter_map(|segment| segment["segment"].as_str()).collect();
        assert_eq!(names, ["image", "initrd", "dtb", "image", "initrd", "dtb"]);
        let in_place = [0, 1, 2].map(|nth| number(segments[nth], "source"));
        let image = number(segments[3], "destination");
        // Linux's list: the segment's place with 1, then its first source with 8.
        let words: Vec<u64> = outcome
            .console
            .lines()
            .filter_map(|line| u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok())
            .collect();
        let at = words.iter().position(|&word| word == image | 1).expect("the image's place in the list");
        let plan = outcome.records.iter().rfind(|r| r.get("kexec").is_some_and(|what| what == "plan"));
        let plan = plan.expect("a plan");
        Self {
            in_place,
            image_page: words[at + 1] & !0xfff,
            dtb_page: number(segments[5], "source"),
            image,
            list: number(plan, "list"),
            control: number(plan, "control"),
            root: number(plan, "root"),
        }
    }
}

/// One byte to be changed: where, from what, to what, and what notices it.
struct Change(u64, u8, u8, &'static str);

impl Change {
    /// The commands: the change is noticed, the map is right, and once the byte is back nothing is
    /// wrong.
    fn script(&self) -> String {
        let Self(at, was, now, _) = self;
        format!("poke {at:#x} {now:#x}; !kexec exec --verify; poke {at:#x} {was:#x};")
    }
}

#[test]
fn a_flipped_byte_is_noticed_wherever_it_is_and_the_system_goes_on() {
    let at = Addresses::read();
    let byte = |value: u64, nth: u64| (value >> (nth * 8)) as u8;
    // "ARM\x64" in the Image's header, the magics of a cpio archive and of a device tree.
    let in_place = [
        Change(at.in_place[0] + 56, b'A', b'B', "image has changed since it was loaded"),
        Change(at.in_place[1], b'0', b'1', "initrd has changed since it was loaded"),
        Change(at.in_place[2], 0xd0, 0xd1, "dtb has changed since it was loaded"),
    ];
    let list = "the move list has changed since it was loaded";
    let tables = "one of the transitional tables has changed since it was loaded";
    // Records of source, destination, length and kind. The first lets the other CPU start, the
    // second is the image's first page; the last of a full frame links to the next.
    let (page, link) = (at.list + 24, at.list + 169 * 24);
    let scattered = [
        Change(at.image_page + 56, b'A', b'B', "image has changed since it was loaded"),
        Change(at.dtb_page, 0xd0, 0xd1, "dtb has changed since it was loaded"),
        Change(page + 1, byte(at.image_page, 1), byte(at.image_page, 1) ^ 0x10, list),
        // No memory is there: it must not be read.
        Change(page + 5, 0, 0x40, list),
        Change(page + 8 + 2, byte(at.image, 2), byte(at.image, 2) ^ 0x20, list),
        Change(page + 16 + 1, 0x10, 0x20, list),
        Change(page + 16, 0, 7, "bad record 1"),
        Change(at.list + 16, 4, 5, "bad record 0"),
        Change(link + 5, 0, 0x40, "where there is no memory"),
        // The root's first entry, also where no memory is, and an entry of the table below that is
        // invalid.
        Change(at.root + 1, byte(at.root - 0x1000, 1), byte(at.root - 0x1000, 1) ^ 0x20, tables),
        Change(at.root + 5, 0, 0x40, tables),
        Change(at.root - 8, 0, 1, tables),
        // msr spsel, #1, and wfi in EL2's first vector.
        Change(at.control + 3, 0xd5, 0xd4, "the relocation code has changed since it was loaded"),
        Change(at.control + 0x2000, 0x7f, 0x7e, "the relocation code has changed since it was loaded"),
    ];
    let script = |changes: &[Change]| changes.iter().map(Change::script).collect::<String>();
    let outcome = run(&format!(
        "mem; kexec load --verify; {} verify; kexec unload; mem; kexec load --scattered --verify; {} verify; \
         !poke 0x0 1; kexec unload; mem; kexec load --scattered --verify; kexec exec --verify",
        script(&in_place),
        script(&scattered),
    ));

    let refused: Vec<&Record> = outcome.records.iter().filter(|r| r.contains_key("refused")).collect();
    let pokes: Vec<&Record> = outcome.records.iter().filter(|r| r.contains_key("poke")).collect();
    let changes: Vec<&Change> = in_place.iter().chain(&scattered).collect();
    assert_eq!(refused.len(), changes.len() + 1, "{}", outcome.console);
    assert_eq!(pokes.len(), changes.len() * 2);
    for (nth, Change(at, was, now, what)) in changes.iter().enumerate() {
        assert_eq!(
            number(pokes[nth * 2], "was"),
            u64::from(*was),
            "what was at {at:#x}\n{}",
            outcome.console
        );
        assert_eq!(number(pokes[nth * 2 + 1], "was"), u64::from(*now));
        let said = refused[nth]["what"].as_str().unwrap_or_default();
        assert!(said.contains(what), "{at:#x}: {said:?} does not say {what:?}");
    }
    assert_eq!(outcome.console.matches("linmap: verify=ok").count(), 2);
    let lists = memory_lists(&outcome);
    assert!(!lists[0].is_empty() && lists[0] == lists[1] && lists[0] == lists[2], "{lists:?}");
    outcome.expect_linux();
}

/// What each `mem` printed.
fn memory_lists(outcome: &Outcome) -> Vec<Vec<String>> {
    let sections = outcome.console.split("linmap> mem").skip(1);
    let lines = |section: &str| -> Vec<String> {
        section.lines().skip(1).take_while(|line| line.starts_with("  ")).map(str::to_owned).collect()
    };
    sections.map(lines).collect()
}

#[test]
fn what_is_right_before_the_move_and_wrong_behind_it_is_not_entered() {
    // Flash, which the tree says is memory: it can be read, and does not hold what is stored. It is
    // the lowest memory, so the payload is moved there. What is staged is unchanged.
    const FLASH: u64 = 0x400_0000;
    let archive = archive(&[
        ("cmdline", b""),
        ("script", b"kexec load --scattered --verify; kexec plan; kexec exec --verify"),
        ("Image", &own_image()),
    ]);
    let tree = Tree {
        memory: vec![(FLASH, 0x400_0000), (RAM, 0x1000_0000)],
        bootargs: "linmap.payload=self".to_owned(),
        initrd: Some((RAM + 0x200_0000, archive.len() as u64)),
        ..Tree::default()
    };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
    assert!(console.contains("linmap: segment=image source=0x0 destination=0x4000000 "), "{console}");
    assert!(console.contains("linmap: phase=kexec-verify "), "{console}");
    let (_, end) = console.split_once("linmap: state=kexec ").expect("it was to be entered");
    assert!(end.contains("linmap: error=verify when=after segment=0"), "{console}");
    assert!(!end.contains("generation=1"), "{console}");
}
