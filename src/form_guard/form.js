// onlyonce (docs/browsers.md)
{
const routes = [];
const { forms = '[data-onlyonce]' } = document.currentScript.dataset;
const words = { de: 'Sendet…' };
const newKey = () => URL.createObjectURL(new Blob()).slice(-36);
const find = (url, method) => routes.find(([requests]) => requests.test(new Request(url).url.replace(origin, method)));
let blocked;
document.onsecuritypolicyviolation = (event) => blocked = /connect/.test(event.effectiveDirective);

const send = async (url, options, key = newKey(), lost) => {
 const [, field, again] = find(url, options.method), headers = new Headers(options.headers);
 if (field) options.body.get(field) || options.body.set(field, key);
 headers.set(lost ? 'onlyonce-form' : 'onlyonce-fetch', key);
 for (let wait = 2, end = Date.now() + 6e5;;) {
  try {
   const answer = await fetch(url, { ...options, headers });
   [answer.verb, answer.to] = `${answer.headers.get('onlyonce-form')}`.split(' ');
   if (answer.headers.has('idempotent-replayed')) dispatchEvent(new CustomEvent('onlyonce:replayed', { detail: answer }));
   if (answer.verb !== 'wait') return answer;
   wait = answer.to;
  } catch (error) {
   if (!again || Date.now() > end || error.code || blocked) throw error;
   lost = lost?.();
  }
  await new Promise((done) => setTimeout(done, wait * 1e3));
 }
};

document.querySelectorAll(forms).forEach((form, index) => {
const note = document.createElement('output'), id = 'onlyonce' + index + location;
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
 if (!/multi/.test(copy.enctype)) body = new URLSearchParams([...body].map(([name, value]) => [name, value.replace(/\r?\n/g, '\r\n')]));
 copy.onformdata = ({ formData }) => [...body].map((field) => formData.append(...field));
 lock(button);
 try {
  const answer = await send(copy.action, { method: 'POST', body }, it[0], () => free('No connection: sent again by itself.'));
  if (answer.verb === 'say') throw await answer.json();
  save(answer.ok ? it[0] : newKey(), 1);
  free('');
  if (answer.to) open(answer.to, copy.target || '_self');
  if (answer.verb === 'page') throw blocked = 1;
 } catch ({ detail = 'No answer. It may have arrived.', offer = 'Try again', anew }) {
  if (blocked) document.body.appendChild(copy).submit();
  else free(detail, offer, () => { if (anew) save(newKey()); submit(button, copy); });
 }
};
form.addEventListener('input', () => it[1] && save(newKey()));
addEventListener('pageshow', ({ persisted }) => persisted && free(''));
form.addEventListener('submit', (event) => unlock && (event.preventDefault(), event.stopImmediatePropagation()), true);
addEventListener('submit', (event) => {
 const button = event.submitter, copy = form.cloneNode();
 for (const { name, value } of button.attributes) if (/^form./.test(name)) copy.setAttribute(name.slice(4), value);
 if (event.target === form && !event.defaultPrevented && find(copy.action, copy.method)) event.preventDefault(submit(button, copy));
});
});
onlyonce = { fetch: send };
}
