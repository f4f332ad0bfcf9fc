// onlyonce
{
const routes = [];
const { forms = '[data-onlyonce]' } = document.currentScript.dataset;
const words = { de: 'Sendet…' };
const newKey = () => URL.createObjectURL(new Blob()).slice(-36);
const find = (url, method) => routes.find(([its]) => its.test(new Request(url).url.replace(origin, method)));
let blocked;
document.onsecuritypolicyviolation = (it) => {
 if (/^connect.*enforce/.test(it.effectiveDirective + it.disposition) && it.blockedURI.startsWith(origin)) blocked = 1;
};

const send = async (url, init, key = newKey(), lost) => {
 const [, field, again] = find(url, init.method), headers = new Headers(init.headers);
 if (field) init.body.get(field) || init.body.set(field, key);
 headers.set(lost ? 'onlyonce-form' : 'onlyonce-fetch', key);
 for (let wait = 2, end = Date.now() + 6e5;;) {
  try {
   const got = await fetch(url, { ...init, headers });
   [got.verb, got.to] = `${got.headers.get('onlyonce-form')}`.split(' ');
   if (got.headers.has('idempotent-replayed')) dispatchEvent(new CustomEvent('onlyonce:replayed', { detail: got }));
   if (got.verb !== 'wait') return got;
   wait = got.to;
  } catch (error) {
   if (!again || error.code || blocked) throw error;
   lost = lost?.();
  }
  await new Promise((go) => setTimeout(go, wait * 1e3));
  if (Date.now() > end) throw Error();
 }
};

document.querySelectorAll(forms).forEach((form, n) => {
const note = document.createElement('output'), id = 'onlyonce' + n + location;
let unlock, it = performance.navigation.type && sessionStorage[id]?.split(',');
const save = (key, done) => sessionStorage[id] = it = [key, done];
if (!it) save(newKey());

const free = (text, label, onclick) => {
 unlock = unlock?.();
 note.textContent = text + ' ';
 if (label) note.append(Object.assign(document.createElement('button'), { type: 'button', textContent: label, onclick }));
};
const lock = (button) => {
 const label = button.firstChild || button, was = label.data || label.value, { width, height } = getComputedStyle(button);
 const show = (busy, text, width, height) => {
  form.ariaBusy = busy;
  for (const one of form.elements) if (one.type === 'submit') one.ariaDisabled = busy;
  label.data = label.value = text;
  Object.assign(button.style, { width, height });
 };
 show(true, form.dataset.progress || words[document.documentElement.lang.slice(0, 2)] || 'Saving…', width, height);
 unlock = () => show(null, was, '', '');
 button.after(note);
};
const submit = async (button, copy) => {
 let body = new FormData(form);
 if (button.name) body.append(button.name, button.value);
 if (!/multi/.test(copy.enctype)) body = new URLSearchParams([...body].map(([name, value]) => [name, (value.name ?? value).replace(/\r?\n/g, '\r\n')]));
 copy.onformdata = ({ formData }) => [...body].map((field) => formData.append(...field));
 lock(button);
 try {
  const got = await send(copy.action, { method: 'POST', body }, it[0], () => free('No connection: sent again by itself.'));
  if (!/go|page|done/.test(got.verb)) throw got.verb === 'say' ? await got.json() : {};
  save(got.ok ? it[0] : newKey(), 1);
  free('');
  if (got.to) open(got.to, copy.target || '_self');
  if (got.verb === 'page') throw blocked = 1;
 } catch ({ detail = 'No answer. It may have arrived.', offer = 'Try again', anew }) {
  if (blocked) document.body.appendChild(copy).submit();
  else free(detail, offer, () => { if (anew) save(newKey()); submit(button, copy); });
 }
};
form.addEventListener('input', () => it[1] && save(newKey()));
addEventListener('pageshow', ({ persisted }) => persisted && free(''));
form.addEventListener('submit', (e) => unlock && (e.preventDefault(), e.stopImmediatePropagation()), true);
addEventListener('submit', (e) => {
 const button = e.submitter, copy = form.cloneNode();
 for (const { name, value } of button.attributes) if (/^form./.test(name)) copy.setAttribute(name.slice(4), value);
 if (e.target === form && !e.defaultPrevented && find(copy.action, copy.method)) e.preventDefault(submit(button, copy));
});
});
onlyonce = { fetch: send };
}
