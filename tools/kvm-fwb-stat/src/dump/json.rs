// SPDX-License-Identifier: GPL-2.0

//! JSON, and the JSON Schema that it follows. Names are the module's own. Within a schema number
//! members may be added, and none changes or goes.

use crate::{
    counters::{Field, Shown, Size, Stat, Timing},
    snapshot::{Figures, Histogram, Hooks, Lazy, Maintenance, Policy, Snapshot, Vm},
};
use serde_json::{Map, Value, json};

/// The number of the schema.
pub const SCHEMA: u64 = 2;

/// A snapshot as one JSON object.
pub fn value(snapshot: &Snapshot) -> Value {
    let host = &snapshot.host;
    json!({
        "schema": SCHEMA,
        "time": (snapshot.time * 1e3).round() / 1e3,
        "host": {
            "fwb": host.fwb,
            "dic": host.dic,
            "idc": host.idc,
            "vhe": host.vhe,
            "native_reset": host.native_reset.name(),
            "hooks": host.hooks.name(),
            "lazy": host.lazy.map(Lazy::name),
        },
        "policy": snapshot.policy.map(Policy::name),
        "total": figures(&snapshot.total),
        "unlisted": figures(&snapshot.unlisted()),
        "vms": snapshot.vms.iter().map(vm).collect::<Vec<_>>(),
        "missing": snapshot.missing,
        "problems": snapshot.problems,
    })
}

fn vm(vm: &Vm) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value| object.insert(name.to_owned(), value);
    put("vm", json!(vm.id.to_string()));
    put("pid", json!(vm.pid()));
    put("fd", json!(vm.id.fd()));
    put("comm", json!(vm.info.as_ref().map(|info| &info.comm)));
    for size in Size::ALL {
        put(size.field().name, json!(vm.size(size)));
    }
    put("owed", json!(vm.owed()));
    for (name, value) in figures(&vm.figures) {
        put(&name, value);
    }
    object.into()
}

fn figures(figures: &Figures) -> Map<String, Value> {
    let stats: Map<_, _> = (Stat::ALL.into_iter())
        .map(|stat| {
            let value = figures.stats.seen(stat);
            (stat.field().name.to_owned(), json!(value))
        })
        .collect();
    let latency = figures.latency.as_ref().map(|latency| {
        (Timing::ALL.into_iter())
            .map(|timing| {
                let times = latency.get(timing).map(histogram);
                (timing.field().name.to_owned(), json!(times))
            })
            .collect::<Map<_, _>>()
    });
    let mut object = Map::new();
    object.insert("stats".into(), stats.into());
    object.insert("latency".into(), json!(latency));
    object.insert("time_ns".into(), json!(figures.time_ns()));
    object
}

fn histogram(histogram: &Histogram) -> Value {
    let buckets: Vec<_> = histogram
        .buckets()
        .map(|bucket| {
            json!({ "from_ns": bucket.from_ns, "to_ns": bucket.to_ns, "count": bucket.count })
        })
        .collect();
    json!({ "count": histogram.count, "sum_ns": histogram.sum_ns, "buckets": buckets })
}

/// The JSON Schema of [`value`].
pub fn schema() -> Value {
    let number = json!({ "type": "integer", "minimum": 0 });
    let nullable = |mut schema: Value| {
        schema["type"] = json!([schema["type"], "null"]);
        schema
    };
    let described = |field: &Field, of: &Value| {
        let (mut schema, absent) = match field.shown {
            Shown::Always => (of.clone(), ""),
            Shown::SinceLazy => (nullable(of.clone()), "; null with an older module"),
            Shown::WithFunction => (
                nullable(of.clone()),
                "; null with an older module, or on a kernel without that function",
            ),
        };
        let text = format!("{}. Unit: {}{absent}", field.help, field.unit.name());
        schema["description"] = text.into();
        (field.name.to_owned(), schema)
    };
    let flag = |text: &str| json!({ "type": "boolean", "description": text });
    let object = |properties: Map<String, Value>| {
        let required: Vec<_> = properties.keys().collect();
        json!({ "type": "object", "required": required, "properties": properties })
    };
    let map = |value: Value| match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };

    let histogram = object(map(json!({
        "count": number,
        "sum_ns": number,
        "buckets": {
            "type": "array",
            "description": "Those that are not empty: at least from_ns, and less than to_ns",
            "items": object(map(json!({ "from_ns": number, "to_ns": number, "count": number }))),
        },
    })));
    let stats = Stat::ALL.map(|stat| described(stat.field(), &number));
    let timings = Timing::ALL.map(|timing| described(timing.field(), &histogram));
    let figures = map(json!({
        "stats": object(stats.into_iter().collect()),
        "latency": nullable(object(timings.into_iter().collect())),
        "time_ns": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Time that the host spent: vcpu_reset, pay and stage2_flush together",
        },
    }));

    let mut vm = map(json!({
        "vm": {
            "type": "string",
            "description": "Its name in debugfs: pid-fd as in KVM's own, or pid-vm and a number \
                where KVM gives it none",
        },
        "pid": { "type": ["integer", "null"], "description": "The thread that made it" },
        "fd": {
            "type": ["integer", "null"],
            "description": "The descriptor that it got; null where its name has none",
        },
        "comm": { "type": ["string", "null"], "description": "Command name of the VMM" },
        "owed": { "type": "string", "description": "What the VM owes now: icache or none" },
    }));
    for size in Size::ALL {
        let (name, schema) = described(size.field(), &number);
        vm.insert(name, nullable(schema));
    }
    vm.extend(figures.clone());

    let mut unlisted = object(figures.clone());
    unlisted["description"] = json!(
        "What total holds beyond all of vms: of VMs that are gone, have no entry, or could not be read"
    );
    let words = |names: Vec<&str>| json!({ "enum": names });
    let mut policies: Vec<_> = Policy::ALL.iter().map(|each| json!(each.name())).collect();
    policies.push(Value::Null);
    let mut lazy: Vec<_> = Lazy::ALL.iter().map(|each| json!(each.name())).collect();
    lazy.push(Value::Null);
    let mut schema = object(map(json!({
        "schema": { "const": SCHEMA },
        "time": { "type": "number", "description": "Seconds since 1970" },
        "host": object(map(json!({
            "fwb": flag("FEAT_S2FWB: data is coherent whatever the guest's attributes"),
            "dic": flag("CTR_EL0.DIC: instructions are coherent without invalidation"),
            "idc": flag("CTR_EL0.IDC: no clean to the PoU is needed"),
            "vhe": flag("The kernel runs at EL2"),
            "native_reset": words(Maintenance::ALL.iter().map(|each| each.name()).collect()),
            "hooks": words(Hooks::ALL.iter().map(|each| each.name()).collect()),
            "lazy": {
                "enum": lazy,
                "description": "What the policy lazy comes to here; null with an older module",
            },
        }))),
        "policy": { "enum": policies, "description": "null where kernel lockdown hides it" },
        "total": object(figures.clone()),
        "unlisted": unlisted,
        "vms": {
            "type": "array",
            "description": "VMs that were reset and still exist",
            "items": object(vm),
        },
        "missing": {
            "type": "array",
            "items": { "type": "string" },
            "description": "Files that an older module lacks; what they hold is null",
        },
        "problems": {
            "type": "array",
            "items": { "type": "string" },
            "description": "What could not be read, each in a line",
        },
    })));
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("kvm-fwb-stat --json");
    schema
}
