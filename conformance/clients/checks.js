/** What the Node programs share: one line a check, a limit on its time, and the exit status. */
'use strict';

const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const CHECK_MS_MAX = 30000;
const modules = process.env.NODE_MODULES || path.join(__dirname, '../.cache/node/node_modules');
const packages = createRequire(path.join(modules, 'any.js'));
const url = process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/';
const checks = [];

function check(name, run) {
  checks.push({ name, run });
}

/** Runs every check in turn, or those whose name holds the first argument, and exits. */
async function main() {
  let failed = 0;
  for (const { name, run } of checks) {
    if (!name.includes(process.argv[2] || '')) continue;
    let timer;
    const limit = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end after ${CHECK_MS_MAX} ms`)), CHECK_MS_MAX);
    });
    try {
      await Promise.race([run(), limit]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok ${name}: ${String(error?.message ?? error).replace(/\s+/g, ' ')}`);
      console.error(error);
    } finally {
      clearTimeout(timer);
    }
  }
  process.exit(failed ? 1 : 0);
}

/** A promise with its two ends outside. */
function promised() {
  const outside = {};
  outside.promise = new Promise((resolve, reject) => Object.assign(outside, { resolve, reject }));
  return outside;
}

const entry = (name) => pathToFileURL(packages.resolve(name)).href;

module.exports = { assert, check, entry, main, packages, promised, url };
