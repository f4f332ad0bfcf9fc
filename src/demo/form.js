// The page around the form clicks for the reader. No form needs this.
addEventListener('message', ({ data }) => {
  const button = document.querySelector('form button');
  if (data === 'reload') location.reload();
  if (data === 'once' || data === 'twice') button?.click();
  if (data === 'twice') setTimeout(() => button?.click(), 120);
});
