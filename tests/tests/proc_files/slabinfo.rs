//! `/proc/slabinfo`.

use expect_test::expect;
use mm::buddy::Gfp;
use mm::proc;
use mm_tests::sim::{Machine, Usual};

#[test]
fn slabinfo_is_linux_s_and_each_number_moves() {
    let machine = Machine::<Usual>::with_ram(32 << 20);
    let objects: Vec<_> = (0..70)
        .map(|_| machine.kmalloc(64, Gfp::KERNEL).unwrap())
        .collect();
    let lines = || {
        let mut text = String::new();
        proc::slabinfo(&*machine, &mut text).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let shown = |line: &String| !line.contains("kmalloc") || line.starts_with("kmalloc-64 ");
        lines.retain(shown);
        lines.join("\n")
    };
    expect![[r#"
        slabinfo - version: 2.1
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
        kmalloc-64            70    128     64   64    1 : tunables    0    0    0 : slabdata      2      2      0"#]].assert_eq(&lines());
    for object in objects {
        // SAFETY: allocated above.
        unsafe { machine.kfree(object) }.unwrap();
    }
    let _ = machine.shrink_caches();
    expect![[r#"
        slabinfo - version: 2.1
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
        kmalloc-64             0      0     64   64    1 : tunables    0    0    0 : slabdata      0      0      0"#]].assert_eq(&lines());
    machine.finish();
}
