if (!self.onlyonce?.fetch) {
const routes = [];
let newKey = () => URL.createObjectURL(new Blob()).slice(-36),
 find = (url, method) => routes.find(([its]) => its.test(new Request(url).url.replace(origin, method))),
 csp, store = {}, ids = {}
try {store = sessionStorage} catch {}
addEventListener('securitypolicyviolation', it =>
 csp ||= /^connect.*enforce/.test(it.effectiveDirective + it.disposition) && it.blockedURI.startsWith(origin))

let send = async (url, init, key = newKey(), lost) => {
 let [, field, ms] = find(url, init.method), headers = new Headers(init.headers)
 if (field) init.body.get(field) ? key = 'own' : init.body.set(field, key)
 headers.set(lost ? 'onlyonce-form' : 'onlyonce-fetch', key)
 for (let wait = 2, end = Date.now() + (ms || 6e5); Date.now() < end;) {
  try {
   let got = await fetch(url, {...init, headers});
   [got.verb, got.to] = `${got.headers.get('onlyonce-form')}`.split(' ')
   if (got.headers.has('idempotent-replayed')) dispatchEvent(new CustomEvent('onlyonce:replayed', {detail: got}))
   if (got.verb != 'wait') return got
   wait = got.to
  } catch (e) {
   if (!ms || e.code || csp) throw e
   lost?.()
  }
  await new Promise(go => init.timer = setTimeout(go, wait * 1e3))
 }
 throw Error()
}
onlyonce = {fetch: send}

document.querySelectorAll(document.currentScript.dataset.forms || '[data-onlyonce]').forEach(form => {
let note = document.createElement('output'), init = {method: 'POST'}
let id = [document.URL.split('#')[0], form.getAttribute('action'), form.id]
id += ids[id] = -~ids[id]
let undo, it = performance.navigation.type && store[id]?.split(',')
let save = (...state) => store[id] = it = state
it || save(newKey())

let free = (text = '', ask, onclick) => {
 undo = undo?.()
 note.textContent = text + ' '
 ask && note.append(Object.assign(document.createElement('button'), {type: 'button', textContent: ask, onclick}))
}
let submit = async (button, copy) => {
 let body = new FormData(form), got = {}
 button.name && body.append(button.name, button.value)
 if (!/^m/.test(copy.enctype)) body = new URLSearchParams([...body].map(it => it.map(text => (text.name ?? text).replace(/\r?\n/g, '\r\n'))))
 init.body = body
 copy.onformdata = e => [...body].map(it => e.formData.append(...it))
 clearTimeout(init.timer, free())

 let face = button.firstChild || button, was = face.data || face.value
 let show = (busy, text, {width = '', height = ''}) => {
  form.ariaBusy = busy
  for (let one of form.elements) if (one.type == 'submit') one.ariaDisabled = busy
  if (was) face.data = face.value = text
  Object.assign(button.style, {width, height})
 }
 show(true, form.dataset.progress || (form.matches(':lang(de)') ? 'Sendet…' : 'Saving…'), getComputedStyle(button))
 undo = () => show(null, was, {})
 button.after(note)
 try {
  got = await send(copy.action, init, it[0], () => free('No connection. Retrying…'))
  if (!/go|page|send/.test(got.verb)) throw await got.json()
  save(got.ok ? it[0] : newKey(), 1)
 } catch ({detail = 'No answer. It may have arrived.', offer = 'Try again', anew, done}) {
  save(it[0], done)
  if (!csp) return free(detail, offer, () => submit(button, copy, button.focus(anew && save(newKey()))))
 }
 got.to ? open(got.to, copy.target || '_self') : document.body.appendChild(copy).submit()
 if (!/^(_self|_top|_parent|)$/.test(copy.target)) free()
 else if (got.verb != 'send') init.timer = setTimeout(free, 1e4)
}
form.addEventListener('input', () => it[1] && save(newKey()))
addEventListener('pageshow', e => e.persisted && free())
self.navigation?.addEventListener('navigateerror', () => free())
form.addEventListener('submit', e => undo && e.preventDefault(e.stopImmediatePropagation()), true)
addEventListener('submit', e => {
 let button = e.submitter, copy = form.cloneNode()
 if (e.target != form || e.defaultPrevented || !button) return
 for (let {name, value} of button.attributes) if (/^form./.test(name)) copy.setAttribute(name.slice(4), value)
 if (find(copy.action, copy.method)) e.preventDefault(submit(button, copy))
})
})
}
