// Brings the lists up to date, and plays the impatient user in all three forms.
const ways = ['guard', 'proxy', 'backend'];
const frame = (way) => document.getElementById(way);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const tell = (way, word) => frame(way).contentWindow.postMessage(word, '*');
// A frame of another origin says by itself that it is there.
const loaded = (way) => new Promise((done) => frame(way).addEventListener('load', done, { once: true }));

setInterval(async () => {
  try {
    const text = await (await fetch('/')).text();
    const now = new DOMParser().parseFromString(text, 'text/html');
    for (const ledger of document.querySelectorAll('.ledger')) {
      const { innerHTML } = now.getElementById(ledger.id);
      if (ledger.innerHTML !== innerHTML) ledger.innerHTML = innerHTML;
    }
    document.body.classList.remove('stopped');
  } catch {
    document.body.classList.add('stopped');
  }
}, 400);

for (const button of document.querySelectorAll('[data-reload]')) {
  button.addEventListener('click', () => tell(button.dataset.reload, 'reload'));
}

const rows = async () => {
  const invoices = await (await fetch('/invoices')).json();
  return ['guard', 'onlyonce', 'direct'].map((way) => invoices.filter(({ via }) => via === way).length);
};

const check = document.getElementById('check');
const told = document.getElementById('told');
check.addEventListener('click', async () => {
  check.setAttribute('aria-disabled', 'true');
  if (check.busy) return;
  check.busy = true;
  told.textContent = 'Opening the forms…';
  const opened = ways.map(loaded);
  for (const way of ways) frame(way).src = `${frame(way).src.split('?')[0]}?${Date.now()}`;
  await Promise.all(opened);
  const before = await rows();
  told.textContent = 'Two quick clicks…';
  for (const way of ways) tell(way, 'twice');
  await pause(700);
  told.textContent = 'Reloading in the middle of submitting…';
  const again = ways.map(loaded);
  for (const way of ways) tell(way, 'reload');
  await Promise.all(again);
  told.textContent = 'Sending it again…';
  const answered = ways.map(loaded);
  for (const way of ways) tell(way, 'once');
  await Promise.all(answered);
  await pause(2200);
  const after = await rows();
  const [guard, proxy, backend] = after.map((count, index) => count - before[index]);
  told.textContent = `Sent three times in each form. Invoices: ${guard} with the form guard, ${proxy} through onlyonce alone, ${backend} straight at the backend.`;
  check.removeAttribute('aria-disabled');
  check.busy = false;
});
