// Holds objects of Prometheus Operator, KEDA and cert-manager against the models of their packages:
//
//     node crds.mjs TOOLS < OBJECTS      TOOLS: the directory of scripts/kubernetes.sh; OBJECTS: a JSON list
//
// Prints a JSON list that has, for each object, the list of what is wrong with it.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const GROUPS = {
  "monitoring.coreos.com/v1": "prometheus-operator",
  "keda.sh/v1alpha1": "keda",
  "cert-manager.io/v1": "cert-manager",
};

// The models check each field they know and pass over all others, so a field that they never look at is none of theirs.
// What may hold anything (an extension, a template) is looked at as a whole and not inside.
function watched(value, where, unread) {
  if (value === null || typeof value !== "object") return value;
  const parts = new Map();
  for (const [key, part] of Object.entries(value)) {
    const place = Array.isArray(value) ? `${where}[${key}]` : `${where}.${key}`;
    parts.set(key, { part: null, place });
    unread.add(place);
  }
  return new Proxy(value, {
    get(target, key) {
      const known = parts.get(key);
      if (known === undefined) return target[key];
      unread.delete(known.place);
      known.part ??= watched(target[key], known.place, unread);
      return known.part;
    },
  });
}

async function faults(object) {
  const packageName = GROUPS[object.apiVersion];
  const module = path.join(process.argv[2], "node_modules/@kubernetes-models", packageName, object.apiVersion, `${object.kind}.js`);
  if (!fs.existsSync(module)) return [`${packageName} knows no ${object.kind} of ${object.apiVersion}`];
  const unread = new Set();
  const Model = (await import(pathToFileURL(module).href))[object.kind];
  const model = new Model(object);
  for (const key of Object.keys(object)) model[key] = watched(object[key], key, unread);
  const found = [];
  try {
    model.validate();
  } catch (error) {
    found.push(error.message);
  }
  return found.concat([...unread].map((place) => `${place} is no field that it knows`));
}

const objects = JSON.parse(fs.readFileSync(0, "utf8"));
const answer = [];
for (const object of objects) answer.push(await faults(object));
process.stdout.write(JSON.stringify(answer));
