{
const routes = [];
const { forms = '[data-onlyonce]' } = document.currentScript.dataset;
const newKey = () => URL.createObjectURL(new Blob()).slice(-36);
const find = (url, method) => routes.find(([its]) => its.test(new Request(url).url.replace(origin, method)));
let csp, store = {};
try { store = sessionStorage; } catch {}
addEventListener('securitypolicyviolation', (it) =>
 csp ||= /^connect.*enforce/.test(it.effectiveDirective + it.disposition) && it.blockedURI.startsWith(origin));

const send = async (url, init, key = newKey(), lost) => {
 const [, field, ms] = find(url, init.method), headers = new Headers(init.headers);
 if (field) init.body.get(field) ? key = 'own' : init.body.set(field, key);
 headers.set(lost ? 'onlyonce-form' : 'onlyonce-fetch', key);
 for (let wait = 2, end = Date.now() + (ms || 6e5); Date.now() < end;) {
  try {
   const got = await fetch(url, { ...init, headers });
   [got.verb, got.to] = `${got.headers.get('onlyonce-form')}`.split(' ');
   if (got.headers.has('idempotent-replayed')) dispatchEvent(new CustomEvent('onlyonce:replayed', { detail: got }));
   if (got.verb !== 'wait') return got;
   wait = got.to;
  } catch (e) {
   if (!ms || e.code || csp) throw e;
   lost?.();
  }
  await new Promise((go) => init.timer = setTimeout(go, wait * 1e3));
 }
 throw Error();
};
onlyonce = { fetch: send };

document.querySelectorAll(forms).forEach((form, n) => {
const note = document.createElement('output'), init = { method: 'POST' }, id = 'onlyonce' + n + location.href.split('#')[0];
let undo, it = performance.navigation.type && store[id]?.split(',');
const save = (...state) => store[id] = it = state;
it || save(newKey());

const free = (text = '', ask, onclick) => {
 undo = undo?.();
 note.textContent = text + ' ';
 ask && note.append(Object.assign(document.createElement('button'), { type: 'button', textContent: ask, onclick }));
};
const submit = async (button, copy) => {
 let body = new FormData(form);
 button.name && body.append(button.name, button.value);
 if (!/^m/.test(copy.enctype)) body = new URLSearchParams([...body].map((it) => it.map((text) => (text.name ?? text).replace(/\r?\n/g, '\r\n'))));
 const post = () => document.body.appendChild(copy).submit();
 copy.onformdata = (e) => [...body].map((it) => e.formData.append(...it));

 const face = button.firstChild || button, was = face.data || face.value;
 const show = (busy, text, { width = '', height = '' }) => {
  form.ariaBusy = busy;
  for (const one of form.elements) if (one.type === 'submit') one.ariaDisabled = busy;
  if (was) face.data = face.value = text;
  Object.assign(button.style, { width, height });
 };
 show(true, form.dataset.progress || (/^de/.test(document.documentElement.lang) ? 'Sendet…' : 'Saving…'), getComputedStyle(button));
 undo = () => show(null, was, {});
 button.after(note);
 clearTimeout(init.timer);
 try {
  init.body = body;
  const got = await send(copy.action, init, it[0], () => free('No connection. Retrying…'));
  if (!/go|page/.test(got.verb)) throw await got.json();
  save(got.ok ? it[0] : newKey(), 1);
  got.to ? open(got.to, copy.target || '_self') : post();
  copy.target ? free() : init.timer = setTimeout(free, 5e3);
 } catch ({ detail = 'No answer. It may have arrived.', offer = 'Try again', anew, done }) {
  save(it[0], done);
  csp ? post() : free(detail, offer, () => submit(button, copy, anew && save(newKey())));
 }
};
form.addEventListener('input', () => it[1] && save(newKey()));
addEventListener('pageshow', (e) => e.persisted && free());
self.navigation?.addEventListener('navigateerror', () => free());
form.addEventListener('submit', (e) => undo && e.preventDefault(e.stopImmediatePropagation()), true);
addEventListener('submit', (e) => {
 const button = e.submitter, copy = form.cloneNode();
 for (const { name, value } of button.attributes) if (/^form./.test(name)) copy.setAttribute(name.slice(4), value);
 if (e.target === form && !e.defaultPrevented && find(copy.action, copy.method)) e.preventDefault(submit(button, copy));
});
});
}
