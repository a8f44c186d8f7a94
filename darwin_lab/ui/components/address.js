// Writes the shared selection into the address bar, and the open tab. Tells charts and the genome
// editor which layer is selected, so that marking it needs no answer from the server.
function write(change) {
  const url = new URL(window.location.href);
  for (const [key, value] of Object.entries(change)) value == null || value === '' ? url.searchParams.delete(key) : url.searchParams.set(key, value);
  window.history.replaceState(window.history.state, '', url);
}
let told = false, last;
function tell() {
  const change = props.value || {};
  write(change);
  if (last === change.layer) return;
  last = change.layer;
  if (performance.now() - (window.__darwinMoved ?? -1e9) < 800) return;   // arrow keys run ahead of the server
  window.__darwinLayer = change.layer ?? null;
  window.dispatchEvent(new CustomEvent('darwin-layer'));
  const panel = document.getElementById('layer_panel');      // where the panel lies below the maps, go there
  if (told && change.layer != null && window.innerWidth < 1000 && panel?.offsetParent) panel.scrollIntoView({block: 'start', behavior: 'smooth'});
  told = true;
}
watch('value', tell);
// The tabs may be drawn after this component is: watch the page, not the bar. Landing on the home tab is no choice.
let opened = element.querySelector('[data-home]').dataset.home;
function follow() {                                              // clicked or chosen by a handler: both move aria-selected
  const open = document.querySelector('#tabs [role=tab][aria-selected=true]')?.id.match(/^tab_(\w+)-button$/)?.[1];
  if (open && open !== opened) write({tab: opened = open});
}
new MutationObserver(follow).observe(document.body, {attributes: true, attributeFilter: ['aria-selected'], subtree: true});
