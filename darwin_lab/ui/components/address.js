// Writes the shared selection into the address bar, and the open tab when one is clicked. Tells charts and the genome
// editor which layer is selected, so that marking it needs no answer from the server.
function write(change) {
  const url = new URL(window.location.href);
  for (const [key, value] of Object.entries(change)) value == null || value === '' ? url.searchParams.delete(key) : url.searchParams.set(key, value);
  window.history.replaceState(window.history.state, '', url);
}
let told = false;
function tell() {
  const change = props.value || {};
  write(change);
  if (window.__darwinLayer === change.layer) return;
  window.__darwinLayer = change.layer ?? null;
  window.dispatchEvent(new CustomEvent('darwin-layer'));
  const panel = document.getElementById('layer_panel');      // where the panel lies below the maps, go there
  if (told && change.layer != null && window.innerWidth < 1000 && panel?.offsetParent) panel.scrollIntoView({block: 'start', behavior: 'smooth'});
  told = true;
}
watch('value', tell);
document.addEventListener('click', event => {
  const tab = event.target.closest('[role=tab]');
  const name = tab?.id?.match(/^tab_(\w+)-button$/)?.[1];
  if (name) write({tab: name});
});
