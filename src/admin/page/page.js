'use strict';
// The status page. It asks this listener and no other host; what it was told is put into the page as text, never as
// markup. The token is kept in this variable alone, and travels in Authorization.
let token = '';

const POLL = 2000;
const FAMILIES = [
  ['ran', 'ran', ['executed']],
  ['replayed', 'replayed', ['replayed']],
  ['held', 'held back: the key is in use', ['in_flight', 'key_reused', 'unknown', 'unreplayable']],
  ['refused', 'refused: the request is wrong', ['missing_key', 'invalid_key', 'key_expired', 'invalid_token',
    'invalid_body', 'bad_request', 'too_large', 'request_timeout', 'replay_refused']],
  ['trouble', 'trouble: store, backend or load', ['store_unavailable', 'record_unreadable', 'overloaded',
    'upstream_error']],
  ['unguarded', 'passed unguarded', ['unguarded']],
];
const familyOf = {};
for (const [family, , outcomes] of FAMILIES) for (const outcome of outcomes) familyOf[outcome] = family;

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes (`onclick` and the like are listeners) and children. */
function make(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ''));
  return element;
}

/** Changes text only where it differs, so that nothing is announced or selected away for nothing. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Brings the children of `parent` in line with `items`: those that stay keep focus and place. */
function keep(parent, items, keyOf, build, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = build(item);
      child.dataset.key = key;
    }
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
    update(child, item);
  }
  for (const gone of known.values()) gone.remove();
}

// --- asking

class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || 'refused');
    this.code = problem.code;
    this.status = problem.status;
  }
}

async function ask(target, content) {
  // Another origin's page, and a backend that is made to fetch a URL, cannot send this field.
  const headers = { 'Onlyonce-Admin': 'page' };
  if (token) headers.Authorization = `Bearer ${token}`;
  const options = { headers, cache: 'no-store', credentials: 'omit', redirect: 'error' };
  if (content !== undefined) {
    options.method = 'POST';
    options.body = JSON.stringify(content);
    headers['Content-Type'] = 'application/json';
  }
  const response = await fetch(target, options);
  const answer = await response.json();
  if (!response.ok) throw new Refused({ status: response.status, ...answer });
  return answer;
}

// --- words

const plural = (count, noun) => `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
const number = (value) => value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 });
const millis = (value) => (value > 0 && value < 0.1 ? 'under 0.1 ms' : `${number(value)} ms`);

function span(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))}\u00a0s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}\u00a0min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)}\u00a0h`;
  return `${Math.round(seconds / 86400)}\u00a0days`;
}

// By the sidecar's clock: the browser's may be wrong.
let clockSkew = 0;
const since = (moment) => (Date.now() + clockSkew - Date.parse(moment)) / 1000;
const ago = (moment) => `${span(since(moment))} ago`;
const time = (moment) => make('time', { datetime: moment }, moment.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'));
const words = (name) => name.replaceAll('_', ' ');

function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1048576) return `${number(count / 1024)} KiB`;
  return `${number(count / 1048576)} MiB`;
}

// --- charts

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Stacked bars, one for each minute; `series` are [family, numbers]. */
function bars(chart, series) {
  const minutes = series.length ? series[0][1].length : 60;
  const totals = Array.from({ length: minutes }, (_, at) => sum(series.map(([, numbers]) => numbers[at])));
  const most = Math.max(1, ...totals);
  const rects = [];
  totals.forEach((_, at) => {
    let floor = 0;
    for (const [family, numbers] of series) {
      if (!numbers[at]) continue;
      const height = Math.max(1.2, (numbers[at] / most) * 58);
      floor += height;
      rects.push(svg('rect', { class: family, x: at * 10 + 1, y: 60 - floor, width: 8, height }));
    }
  });
  chart.replaceChildren(svg('line', { class: 'floor', x1: 0, y1: 60, x2: minutes * 10, y2: 60 }), ...rects);
  return most;
}

/** A line; `null` is a gap. */
function line(chart, numbers) {
  const most = Math.max(1e-9, ...numbers.map((value) => value ?? 0));
  let path = '';
  let drawing = false;
  numbers.forEach((value, at) => {
    if (value === null) drawing = false;
    else {
      const y = 60 - (value / most) * 56;
      // A lone point is a short stroke.
      path += drawing ? `L${at * 10 + 5} ${y}` : `M${at * 10 + 1} ${y}L${at * 10 + 5} ${y}`;
      drawing = true;
    }
  });
  chart.replaceChildren(svg('line', { class: 'floor', x1: 0, y1: 60, x2: 600, y2: 60 }),
    svg('path', { class: 'line', d: path }));
  return most;
}

function plot() {
  const chart = svg('svg', { class: 'chart', viewBox: '0 0 600 61', preserveAspectRatio: 'none', role: 'img' });
  const most = make('span');
  const scale = make('div.scale', { 'aria-hidden': 'true' }, make('span', {}, 'an hour ago'), most, make('span', {}, 'now'));
  return { chart, most, scale };
}

// --- figures

function figures(list, entries) {
  keep(list, entries, ([label]) => label,
    ([label]) => make('div', {}, make('dt', {}, label), make('dd')),
    (child, [, value, mood]) => {
      const shown = child.querySelector('dd');
      say(shown, value);
      shown.className = mood || '';
    });
}

function light(name, text, mood) {
  return { name, text, mood };
}

function lights(status) {
  const { store, reload } = status;
  const shown = [
    status.draining ? light('serving', 'stopping', 'warn') : light('serving', 'serving', 'good'),
    store.up ? light('store', 'store up', 'good') : light('store', 'store down', 'bad'),
    reload.last_ok ? light('reload', 'configuration in force', 'good')
      : light('reload', 'configuration refused, the old one holds', 'bad'),
  ];
  if (store.used_ratio !== null && store.used_ratio > 0.8) {
    shown.push(light('full', `store ${Math.round(store.used_ratio * 100)} % full`, 'bad'));
  }
  if (store.may_evict) shown.push(light('evicts', 'store may drop records', 'bad'));
  if (store.losses) shown.push(light('losses', `store lost its data: ${store.losses}×`, 'bad'));
  keep($('lights'), shown, (one) => one.name, () => make('li'), (child, one) => {
    child.className = one.mood;
    say(child, one.text);
  });
}

function hour(route, outcomes) {
  return sum(outcomes.map((outcome) => sum(route.outcomes[outcome] || [])));
}

function now(status) {
  const routes = status.routes;
  const all = (outcomes) => sum(routes.map((route) => hour(route, outcomes)));
  const [, , held] = FAMILIES[2];
  const trouble = all(FAMILIES[4][2]);
  const last = status.store.typical_ms.findLast((value) => value !== null);
  figures($('now'), [
    ['requests a second', number(status.per_second)],
    ['in flight', number(status.in_flight)],
    ['waiting for the first', number(status.waiting)],
    ['replayed, last hour', number(all(['replayed']))],
    ['held back, last hour', number(all(held))],
    ['trouble, last hour', number(trouble), trouble ? 'bad' : ''],
    ['outcomes unknown', number(status.unknown), status.unknown ? 'bad' : ''],
    ['leases lost', number(status.lease_lost), status.lease_lost ? 'bad' : ''],
    ['store, typically', last === undefined ? '–' : millis(last).replace('under', '<')],
    ['client connections', number(status.connections)],
  ]);
}

const GUARDS = { enforce: '', observe: 'observed only', off: 'off' };

function routeItem(route) {
  const { chart, most, scale } = plot();
  const item = make('li', {},
    make('h3', {}, make('span.title'), ' ', make('small.match')),
    make('p.says'),
    make('ul.tags'),
    make('div.plot', {}, chart, scale, make('ul.outcomes', { 'aria-label': `Requests of ${route.route} in the last hour` })));
  item.parts = { chart, most };
  return item;
}

function updateRoute(item, route) {
  say(item.querySelector('.title'), route.route);
  say(item.querySelector('.match'), route.match || '');
  say(item.querySelector('.says'), route.says);
  item.querySelector('.says').hidden = !route.says;
  const tags = [];
  if (GUARDS[route.mode]) tags.push(['mode', GUARDS[route.mode], 'warn']);
  if (route.in_flight) tags.push(['in_flight', `${route.in_flight} in flight`, '']);
  if (route.waiting) tags.push(['waiting', `${route.waiting} waiting`, '']);
  if (route.unknown) tags.push(['unknown', `${route.unknown} unknown`, 'bad']);
  if (route.lease_lost) tags.push(['lost', plural(route.lease_lost, 'lease') + ' lost', 'bad']);
  keep(item.querySelector('.tags'), tags, ([name]) => name, () => make('li'), (child, [, text, mood]) => {
    child.className = mood;
    say(child, text);
  });
  const counts = Object.entries(route.outcomes).map(([outcome, numbers]) => [outcome, sum(numbers)]);
  const series = FAMILIES.map(([family, , outcomes]) => {
    const there = outcomes.map((outcome) => route.outcomes[outcome]).filter(Boolean);
    return [family, there.length ? there[0].map((_, at) => sum(there.map((numbers) => numbers[at]))) : Array(60).fill(0)];
  });
  const told = counts.map(([outcome, count]) => `${count} ${words(outcome)}`).join(', ');
  const most = bars(item.parts.chart, series);
  const peak = counts.length ? `at most ${plural(most, 'request')} in a minute` : 'no request';
  item.parts.chart.setAttribute('aria-label', `${route.route}, last hour: ${counts.length ? `${told}; ` : ''}${peak}`);
  say(item.parts.most, peak);
  keep(item.querySelector('.outcomes'), counts, ([outcome]) => outcome, ([outcome]) => make(`li.${familyOf[outcome]}`),
    (child, [outcome, count]) => say(child, `${number(count)} ${words(outcome)}`));
}

function routes(status) {
  keep($('routes'), status.routes, (route) => route.route, routeItem, updateRoute);
  $('more-routes').hidden = !status.more_routes;
  say($('more-routes'), `${plural(status.more_routes, 'route')} with less traffic: see /metrics.`);
  const names = status.routes.filter((route) => route.key).map((route) => route.route);
  const select = $('route');
  const chosen = select.value;
  keep(select, names, (name) => name, (name) => make('option', { value: name }, name), () => {});
  if (chosen !== select.value || !$('parts').firstElementChild) parts();
}

function store(status) {
  const { store } = status;
  say($('store-where'), store.location || '');
  const calls = sum(store.calls);
  const errors = sum(store.errors);
  const known = (numbers) => numbers.filter((value) => value !== null);
  const slow = Math.max(0, ...known(store.slow_ms));
  figures($('store'), [
    ['health', store.up ? 'up' : 'down', store.up ? 'good' : 'bad'],
    ['calls, last hour', number(calls)],
    ['failed, last hour', number(errors), errors ? 'bad' : ''],
    ['slowest minute, 99\u00a0%', calls ? `< ${number(slow)} ms` : '–'],
    ['room used', store.used_ratio === null ? 'no limit' : `${number(store.used_ratio * 100)} %`,
      store.used_ratio > 0.8 ? 'bad' : ''],
    ['times it lost its data', number(store.losses), store.losses ? 'bad' : ''],
    ['reloads: taken', number(status.reload.ok)],
    ['reloads: refused', number(status.reload.refused), status.reload.last_ok ? '' : 'bad'],
  ]);
  const peak = (text) => (calls ? `at most ${text}`.replace('at most under', 'under') : 'no call');
  const charts = [
    ['Calls a minute', `${number(calls)} calls to the store in the last hour, ${number(errors)} failed; in a minute`,
      (chart) => bars(chart, [['ran', store.calls.map((count, at) => count - store.errors[at])], ['trouble', store.errors]]),
      number],
    ['Mean time of a call', 'Mean time of a call to the store in the last hour, by the minute:',
      (chart) => line(chart, store.typical_ms), millis],
  ];
  keep($('store-charts'), charts, ([title]) => title, ([title]) => {
    const { chart, most, scale } = plot();
    const figure = make('figure', {}, make('figcaption', {}, title), chart, scale);
    figure.parts = { chart, most };
    return figure;
  }, (figure, [, about, draw, text]) => {
    const most = peak(text(draw(figure.parts.chart)));
    figure.parts.chart.setAttribute('aria-label', `${about} ${most}`);
    say(figure.parts.most, most);
  });
}

// --- what needs a hand

let mayChange = false;

function acts(entry) {
  if (!mayChange) return [];
  const act = (verb, text) => make('button.plain.small', {
    type: 'button', onclick: () => openChange(verb, entry), 'aria-label': `${text} ${entry.record}`,
  }, text);
  const isAlive = entry.owner === 'alive';
  const buttons = [];
  if (!isAlive && ['unknown', 'in_flight', 'unreplayable'].includes(entry.state)) buttons.push(act('complete', 'Complete'));
  if (!isAlive && !['absent', 'unreadable'].includes(entry.state)) buttons.push(act('release', 'Release'));
  return buttons;
}

function unknown(answer) {
  $('hand').hidden = false;
  $('hand-none').hidden = answer.records.length > 0;
  $('hand-some').hidden = answer.records.length === 0;
  say($('hand-count'), answer.count ? number(answer.count) : '');
  keep($('unknown'), answer.records, (entry) => entry.record, (entry) => make('li', {},
    make('div.what', {}, make('span.name', {}, entry.record), make('small.when')),
    make('div.act', {}, make('button.plain.small', {
      type: 'button', onclick: () => show(entry.record, true), 'aria-label': `Story of ${entry.record}`,
    }, 'Story'), ...acts(entry))),
  (child, entry) => say(child.querySelector('.when'), `${state(entry)}${entry.settled_at ? ' for' : ', claimed'} `
    + `${entry.settled_at ? span(since(entry.settled_at)) : ago(entry.claimed_at)}; its key is held for another `
    + `${span(-since(entry.expires_at))}`));
}

function state(entry) {
  if (entry.state === 'in_flight' && entry.owner === 'lost') return 'in flight, its owner lost';
  if (entry.state === 'absent') return 'no record: the key is free';
  return words(entry.state) + (entry.status ? ` with ${entry.status}` : '') + (entry.found_by_probe ? ', found by a probe' : '');
}

// --- last refusals

function refusals(answer) {
  const list = answer.refusals;
  $('refused').hidden = false;
  $('refused-none').hidden = list.length > 0;
  $('refusals').hidden = list.length === 0;
  const cell = (content, name = '') => make(`td${name}`, {}, content);
  keep($('refusals').tBodies[0], list, (one) => String(one.number), (one) => make('tr', {},
    cell('', '.when'), cell(one.route), cell(`${one.status} ${one.code}`), cell(one.detail),
    cell(one.record ? make('button.plain.small.name', {
      type: 'button', onclick: () => show(one.record, true), 'aria-label': `Story of ${one.record}`,
    }, `${one.record.slice(0, -24)}…`) : '–', '.name')),
  (row, one) => say(row.firstElementChild, ago(one.at)));
}

// --- look-up

const RECORD = /[A-Za-z0-9._-]+(?:@observe)?:[0-9a-f]{32}(?![0-9a-f])/;

$('by-name').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = $('name').value.match(RECORD);
  if (name) show(name[0]);
  else {
    foundNone('There is no record name in this: it is a route, a colon and 32 hex digits. A refusal without one belongs '
      + 'to no record.');
  }
});

function known(route) {
  return latest?.routes.find((one) => one.route === route);
}

function parts() {
  const route = known($('route').value);
  const inputs = [];
  const input = (list, at, selector, what) => {
    const id = `${list}-${at}`;
    inputs.push(make('div', {}, make('label', { for: id }, `${what}: ${selector}`),
      make('input', { id, name: id, autocomplete: 'off', spellcheck: 'false', placeholder: hint(selector, list) })));
  };
  if (route) {
    route.key.forEach((selector, at) => input('key', at, selector, 'Key'));
    route.scope.forEach((selector, at) => input('scope', at, selector, 'Caller'));
    if (route.needs_url) input('url', 0, 'path and query', 'Request');
  }
  $('parts').replaceChildren(...inputs);
}

function hint(selector, list) {
  if (selector.startsWith('json:') && list === 'key') return 'as in the JSON: "17" and 17 differ';
  if (selector === 'header:authorization') return 'Bearer …, as it was sent';
  if (selector.startsWith('date:')) return '2026-11-29; empty: today';
  return list === 'scope' ? 'empty: the request had none' : '';
}

$('route').addEventListener('change', parts);
$('by-key').addEventListener('submit', async (event) => {
  event.preventDefault();
  const route = known($('route').value);
  if (!route) return;
  const value = (list, at) => $(`${list}-${at}`).value;
  const content = {
    route: route.route,
    key: route.key.map((_, at) => value('key', at)),
    scope: route.scope.map((_, at) => value('scope', at)),
  };
  if (route.needs_url) content.url = value('url', 0);
  try {
    const answer = await ask('/look-up', content);
    if (answer.records.length) found(inShort(answer.records[0]), ...answer.records.map(story));
    else {
      const free = 'There is no record under this key for this caller. The key is free: it was never used here, its '
        + 'retention is over, or it was released.';
      found(free, make('p', {}, free), make('p.quiet.name', {}, answer.looked_for.join(' ')));
    }
  } catch (error) {
    foundNone(error.message);
  }
});

/** A screen reader is told one sentence; the rest is there to be read. */
function found(told, ...content) {
  $('found-said').textContent = told;
  $('found').replaceChildren(...content);
}

function foundNone(why) {
  found(why, make('p.bad', {}, why));
}

const inShort = (entry) => `${entry.record}: ${state(entry)}. A repeat ${entry.retry}.`;

/** `isElsewhere`: it was asked for in another part of the page. */
async function show(record, isElsewhere) {
  try {
    const entry = await ask(`/records/${record}`);
    // Who is taken there needs not be told of it.
    found(isElsewhere ? '' : inShort(entry), story(entry));
    if (isElsewhere) $('found').querySelector('h3').focus();
  } catch (error) {
    foundNone(error.message);
    if (isElsewhere) $('find').scrollIntoView({ block: 'nearest' });
  }
}

/** All that is known of one record. */
function story(entry) {
  const steps = [];
  const step = (moment, text, name = '') => moment && steps.push([Date.parse(moment), make(`li${name}`, {}, time(moment), make('div', {}, text))]);
  step(entry.claimed_at, entry.attempt > 1 ? `claimed, attempt ${entry.attempt}` : 'claimed by its first request');
  if (entry.heard_at) step(entry.heard_at, entry.owner === 'alive' ? 'its owner was last heard of' : 'its owner was heard of for the last time');
  step(entry.settled_at, `settled: ${state(entry)}`);
  for (const line of entry.audit || []) {
    const made = { release: 'released', complete: 'completed', probe: 'had the backend asked' }[line.did] || line.did;
    step(line.at, `${made} by ${line.by}${line.from ? ` from ${line.from}` : ''}${line.asked ? `, which asked ${line.asked}` : ''}${line.force ? ', with force' : ''}${line.not_done ? `, ${line.did === 'probe' ? 'and nothing came of it' : 'which was not done'}: ${line.not_done}` : ''}`
      + `${line.reason ? `: “${line.reason}”` : ''}`, '.by-hand');
  }
  step(entry.expires_at, 'forgotten, if nothing happens before');
  steps.sort(([one], [other]) => one - other);
  const answer = entry.answer;
  const told = answer ? [make('p', {}, `The answer: ${answer.status}, `
    + (answer.body_bytes === undefined ? 'its body was not kept.' : `${bytes(answer.body_bytes)} of body.`)),
  answer.headers.length ? make('pre', {}, answer.headers.map(([name, value]) => `${name}: ${value}`).join('\n')) : null] : [];
  return make('article', {}, make('h3.name', { tabindex: '-1' }, entry.record), make('p', {}, `${state(entry)}. A repeat ${entry.retry}.`),
    make('p.advice', {}, entry.advice), make('ol.story', {}, ...steps.map(([, item]) => item)), ...told,
    make('p.records', {}, ...acts(entry)));
}

// --- changes

let changing = null;

function openChange(verb, entry) {
  changing = { verb, entry };
  // What was written for an earlier record is not for this one.
  $('change-form').reset();
  const isComplete = verb === 'complete';
  say($('change-title'), isComplete ? 'Complete this record' : 'Release this key');
  say($('change-name'), entry.record);
  say($('change-text'), isComplete
    ? 'It had its effect. Repeats get this answer from now on, and nothing runs.'
    : 'It had no effect, or may have it twice. The next request with its key runs.');
  say($('change-do'), isComplete ? 'Complete' : 'Release');
  say($('change-said'), '');
  $('answer').hidden = !isComplete;
  $('status').disabled = !isComplete;
  $('change').showModal();
  (isComplete ? $('status') : $('reason')).focus();
}

$('cancel').addEventListener('click', () => $('change').close());
$('change-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const { verb, entry } = changing;
  const { claimed_at, settled_at, attempt } = entry;
  // If another answer or operator came first, nothing is done.
  const content = { reason: $('reason').value, was: { state: entry.state, attempt, claimed_at, settled_at } };
  if (verb === 'complete') {
    content.status = Number($('status').value);
    const lines = $('headers').value.split('\n').filter((text) => text.trim());
    content.headers = lines.map((text) => {
      const at = text.indexOf(':');
      return at < 0 ? [text.trim(), ''] : [text.slice(0, at).trim(), text.slice(at + 1).trim()];
    });
    if ($('body').value) content.body = $('body').value;
  }
  $('change-do').disabled = true;
  try {
    await ask(`/records/${entry.record}/${verb}`, content);
    $('change').close();
    await show(entry.record, true);
    await poll();
  } catch (error) {
    say($('change-said'), error.message);
  } finally {
    $('change-do').disabled = false;
  }
});

// --- signing in

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  token = $('token').value.trim();
  // The look under way was begun without this token.
  await polling;
  poll();
});

/** `used` is the token that `status` was asked with. */
function access(status, used) {
  const { records } = status;
  const wantsToken = records !== null && records.code === 'unauthorized';
  $('sign-in').hidden = !wantsToken;
  if (wantsToken && used && used === token) {
    say($('sign-in-said'), 'This is not a token of this sidecar.');
    token = '';
  }
  if (!wantsToken) $('token').value = '';
  const told = records === null && !status.may_change
    ? 'Your token may read and no more: records are released and completed with one whose may is "change".'
    : records?.detail;
  $('no-records').hidden = !told || wantsToken;
  say($('no-records'), told && !wantsToken ? told : '');
  if (records !== null) for (const id of ['hand', 'find', 'refused']) $(id).hidden = true;
  mayChange = status.may_change;
}

// --- live

let latest = null;
let polling = null;

async function look() {
  const used = token;
  try {
    const status = await ask('/status');
    clockSkew = Date.parse(status.now) - Date.now();
    latest = status;
    say($('version'), status.version);
    access(status, used);
    lights(status);
    now(status);
    routes(status);
    store(status);
    say($('footer'), `running for ${span(since(status.started_at))}`);
    if (status.records === null) {
      $('find').hidden = false;
      const [hands, last] = await Promise.all([ask('/unknown'), ask('/refusals')]);
      unknown(hands);
      refusals(last);
    }
    say($('live'), 'live');
    $('live').className = 'live';
    document.title = status.unknown ? `(${status.unknown}) onlyonce` : 'onlyonce';
  } catch (error) {
    say($('live'), error instanceof Refused ? error.message : 'The sidecar does not answer; the figures are old.');
    $('live').className = 'live bad';
  }
}

/** One look at a time; whoever asks meanwhile gets the one under way. */
function poll() {
  polling ??= look().finally(() => { polling = null; });
  return polling;
}

for (const [family, text] of FAMILIES) $('key').append(make(`li.${family}`, {}, text));
poll();
setInterval(() => { if (!document.hidden) poll(); }, POLL);
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
