// A shop on Express: a form with its CSRF token, a session, and a message that is shown once.
//
// Nothing in it knows of onlyonce but the tag in the page. Its only argument is a folder for the database; while a file "gate"
// is there, an order takes its time.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';

import { csrfSync } from 'csrf-sync';
import express from 'express';
import session from 'express-session';

const folder = process.argv[2];
const database = new DatabaseSync(join(folder, 'express.sqlite3'));
database.exec('CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT NOT NULL)');

const app = express();
const { csrfSynchronisedProtection } = csrfSync({ getTokenFromRequest: (request) => request.body._csrf });
app.use(session({ secret: 'of a test', resave: false, saveUninitialized: true }));
app.use(express.urlencoded({ extended: false }));
app.use(csrfSynchronisedProtection);

const html = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const form = (request, name = '', error = '') => `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title>
<script src="/.onlyonce/form.js" data-forms="form" defer></script></head><body>
<form method="post" action="/orders"><input type="hidden" name="_csrf" value="${request.csrfToken()}">
<label>Name <input id="name" name="name" value="${html(name)}" required></label>${error && `<p id="error">${error}</p>`}
<button id="save">Place order</button></form></body></html>`;

app.get('/orders/new', (request, response) => response.send(form(request)));

app.post('/orders', async (request, response) => {
  const { name } = request.body;
  if (!name || name === 'bad') return response.status(422).send(form(request, name, 'No such name.'));
  const { lastInsertRowid: id } = database.prepare('INSERT INTO orders (name) VALUES (?)').run(name);
  while (existsSync(join(folder, 'gate'))) await pause(20);
  request.session.flash = `Order ${id} is placed.`;
  response.redirect(303, `/orders/${id}`);
});

app.get('/orders/:id', (request, response) => {
  const { id } = database.prepare('SELECT id FROM orders WHERE id = ?').get(request.params.id);
  const { flash = '' } = request.session;
  delete request.session.flash;
  response.send(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title></head><body>
${flash && `<p class="flash">${flash}</p>`}<p id="order">${id}</p></body></html>`);
});

app.get('/rows', (request, response) => {
  response.type('text').send(String(database.prepare('SELECT count(*) AS count FROM orders').get().count));
});

const server = app.listen(0, '127.0.0.1', () => console.log('ready', server.address().port));
