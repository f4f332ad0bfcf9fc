if (!self.onlyonce?.fetch) {
let routes = [],
 on = addEventListener,
 uuid = () => URL.createObjectURL(new Blob).slice(-36),
 find = (url, method) => routes.find(([its]) => its.test(new Request(url).url.replace(origin, method))),
 slot = () => self.navigation?.currentEntry?.key || location,
 csp, store = {}, ids = {}
try {store = sessionStorage} catch {}
on('securitypolicyviolation', it =>
 csp ||= (it.effectiveDirective + it.disposition + it.blockedURI).startsWith('connect-srcenforce' + origin))

onlyonce = {fetch: async (url, init, key = [uuid()], lost) => {
 let [, field, ms] = find(url, init.method), headers = new Headers(init.headers), wait = 2, end = Date.now() + (ms || 6e5)
 if (field) init.body.get(field) ? key[0] = 'own' : init.body.set(field, key[0])
 while (Date.now() < end) {
  headers.set(`onlyonce-${lost ? 'form' : 'fetch'}`, key)
  try {
   let got = await fetch(url, {...init, headers});
   [got.verb, got.to] = `${got.headers.get('onlyonce-form')}`.split(' ')
   got.headers.has('idempotent-replayed') && dispatchEvent(new CustomEvent('onlyonce:replayed', {detail: got}))
   if (got.verb != 'wait') return got
   wait = got.to
  } catch (e) {
   await new Promise(setTimeout)
   if (!ms || e.code || csp) throw e
   lost?.()
  }
  key += ','
  await new Promise(go => init.timer = setTimeout(go, wait * 1e3))
 }
 throw Error()
}}

document.querySelectorAll(document.currentScript.dataset.forms || '[data-onlyonce]').forEach(form => {
let note = document.createElement('output'), init = {method: 'POST'},
 id = [form.getAttribute('action'), form.id]
id += ids[id] = -~ids[id]
let undo, it = performance.navigation.type && store[slot() + id]?.split(','),
 save = (...state) => store[slot() + id] = it = state
it || save(uuid())

let free = (text = '', ask, onclick) => {
 undo = undo?.()
 note.replaceChildren(text, ' ', ask ? Object.assign(document.createElement('button'), {textContent: ask, onclick}) : '')
}
let submit = async (btn, copy) => {
 let body = new FormData(form), got = {}
 btn.name && body.append(btn.name, btn.value)
 init.body = body = copy.enctype[0] == 'm' ? body : new URLSearchParams([...body].map(it => it.map(one => (one.name ?? one).replace(/\r?\n/g, '\r\n'))))
 copy.onformdata = e => [...body].map(it => e.formData.append(...it))
 clearTimeout(init.timer, free())

 let face = btn.firstChild || btn, was = face.data || face.value
 undo = (busy, text = was, {width = '', height = ''} = '') => {
  form.ariaBusy = busy
  for (let one of form.elements) if (one.type == 'submit') one.ariaDisabled = busy
  if (was) face.data = face.value = text
  Object.assign(btn.style, {width, height})
 }
 undo(true, form.dataset.progress || (form.matches(':lang(de)') ? 'Sendet…' : 'Saving…'), getComputedStyle(btn))
 btn.after(note)
 try {
  got = await onlyonce.fetch(copy.action, init, it, () => free('No connection. Retrying…'), save(...it, ''))
  if (!/go|send/.test(got.verb)) throw await got.json()
  save(got.ok ? it[0] : uuid(), 1)
 } catch ({detail = 'No answer. It may have arrived.', offer = 'Try again', anew, done}) {
  save(it[0], done)
  if (!csp) return free(detail, offer, () => !submit(btn, copy, btn.focus(anew && save(uuid()))))
 }
 /^(_[spt]|$)/.test(copy.target) || free()
 got.to ? open(got.to, copy.target || '_self') : document.body.appendChild(copy).submit()
 if (got.verb == 'go') init.timer = setTimeout(free, 1e4)
}
on.call(form, 'input', () => it[1] && save(uuid()))
on('pageshow', e => e.persisted && free())
self.navigation?.addEventListener('navigateerror', () => free())
on.call(form, 'submit', e => undo && e.preventDefault(e.stopImmediatePropagation()), true)
on('submit', e => {
 let btn = e.submitter, copy = form.cloneNode()
 for (let {name, value} of btn?.attributes || []) /^form./.test(name) && copy.setAttribute(name.slice(4), value)
 btn && e.target == form && !e.defaultPrevented && find(copy.action, copy.method) &&
  /^[^t].*,utf/i.test([copy.enctype, copy.acceptCharset || document.characterSet]) && e.preventDefault(submit(btn, copy))
})
})
}
