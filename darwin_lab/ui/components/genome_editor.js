// The genome editor: every gene at a glance, one event. `props.value` = {genes: [{name, label, group, value, low, high,
// neutral, mri, locked, idle, help, people, layers}], stamp}. A gene grows from its neutral value; a tick shows the MRI's advice.
const root = element.querySelector('.dl-genome');
let shape = '', genes = [], start = [], timer = null, held = null;
const group_titles = {global: 'Whole model', component: 'Components', density: 'How much of each change is kept', block: 'Blocks of layers', layer: 'Layers, mother’s share', meta: 'How it is merged'};
const shape_of = list => list.map(g => [g.name, g.low, g.high, g.group].join(':')).join('|');
const clamp = (v, g) => Math.min(g.high, Math.max(g.low, v));
const place = (v, g) => 100 * (v - g.low) / (g.high - g.low || 1);
function make(tag, className, words) { const e = document.createElement(tag); if (className) e.className = className; if (words != null) e.textContent = words; return e; }

function build() {
  shape = shape_of(genes);
  root.textContent = '';
  const groups = [...new Set(genes.map(g => g.group))];
  for (const name of groups) {
    const members = genes.map((g, i) => [g, i]).filter(([g]) => g.group === name);
    const upright = members.length > 8;
    const box = make('section', 'dl-genes' + (upright ? ' upright' : ''));
    box.append(make('h4', '', group_titles[name] || name));
    const list = make('div', 'dl-gene-list');
    for (const [gene, i] of members) list.append(row(gene, i));
    box.append(list);
    root.append(box);
  }
}
function row(gene, i) {
  const line = make('div', 'dl-gene');
  line.dataset.i = i;
  line.dataset.gene = gene.name;
  line.dataset.people = gene.people ? '1' : '';
  const name = make('label', 'dl-gene-name', gene.label);
  name.title = gene.help || '';
  const track = make('div', 'dl-track');
  const slider = Object.assign(make('input'), {type: 'range', min: gene.low, max: gene.high, step: 0.001, id: `gene-${gene.name}`});
  slider.setAttribute('aria-label', `${gene.label}. ${gene.help || ''}`);
  name.htmlFor = slider.id;
  const advice = make('span', 'dl-mri');
  track.append(slider, advice);
  const value = Object.assign(make('input', 'dl-value'), {type: 'number', min: gene.low, max: gene.high, step: 0.01});
  value.setAttribute('aria-label', `${gene.label}, value`);
  const lock = make('button', 'dl-lock');
  lock.type = 'button';
  line.append(name, track, value, lock);
  return line;
}
function paint() {
  genes.forEach((g, i) => {
    const line = root.querySelector(`[data-i="${i}"]`);
    if (!line) return;
    const slider = line.querySelector('input[type=range]'), value = line.querySelector('.dl-value'), lock = line.querySelector('.dl-lock'), advice = line.querySelector('.dl-mri');
    if (held !== i) slider.value = g.value;
    if (document.activeElement !== value) value.value = g.value.toFixed(3);
    slider.setAttribute('aria-valuetext', g.value.toFixed(3));
    const off = !!g.locked || !!g.idle;
    slider.disabled = value.disabled = off;
    line.classList.toggle('locked', !!g.locked);
    line.classList.toggle('idle', !!g.idle);
    line.classList.toggle('dirty', Math.abs(g.value - start[i]) > 5e-7);
    line.title = g.idle || '';
    lock.setAttribute('aria-pressed', String(!!g.locked));
    lock.setAttribute('aria-label', `${g.locked ? 'Unlock' : 'Lock'} ${g.label}`);
    lock.title = g.locked ? 'Locked: evolution keeps this value' : 'Lock: evolution will keep this value';
    advice.hidden = g.mri == null;
    if (g.mri != null) { advice.style.setProperty('--at', place(clamp(g.mri, g), g) / 100); advice.title = `MRI advises ${g.mri.toFixed(3)}`; }
    line.style.setProperty('--from', Math.min(place(g.neutral, g), place(g.value, g)) + '%');
    line.style.setProperty('--to', Math.max(place(g.neutral, g), place(g.value, g)) + '%');
    line.dataset.side = g.value > g.neutral ? 'mother' : 'father';
  });
}
function mark() {
  const layer = window.__darwinLayer;
  genes.forEach((g, i) => root.querySelector(`[data-i="${i}"]`)?.classList.toggle('focus', layer != null && g.layers != null && g.layers[0] <= layer && layer <= g.layers[1]));
}
function commit(i, patch, quick) {
  genes = genes.map((g, j) => j === i ? {...g, ...patch} : g);
  paint();
  clearTimeout(timer);
  timer = setTimeout(() => { props.value = {...props.value, genes}; trigger('input', {gene: genes[i].name}); }, quick ? 90 : 0);
}
const index = event => +event.target.closest('.dl-gene')?.dataset.i;
root.addEventListener('input', event => { if (event.target.type === 'range') { held = index(event); commit(held, {value: +event.target.value}, true); } });
root.addEventListener('change', event => {
  const i = index(event);
  held = null;
  if (event.target.type === 'number') {
    const v = Number(event.target.value);
    if (event.target.value === '' || !Number.isFinite(v)) { event.target.value = genes[i].value.toFixed(3); return; }
    const kept = clamp(v, genes[i]);
    event.target.value = kept.toFixed(3);
    commit(i, {value: kept});
  }
});
root.addEventListener('click', event => { const lock = event.target.closest('.dl-lock'); if (lock) { const i = index(event); commit(i, {locked: !genes[i].locked}); } });
root.addEventListener('dblclick', event => { if (event.target.type === 'range') { const i = index(event); if (!genes[i].locked) commit(i, {value: genes[i].neutral}); } });
root.addEventListener('keydown', event => {
  if (event.target.type !== 'range') return;
  const i = index(event), moves = {PageUp: 0.1, PageDown: -0.1};
  if (event.key in moves) { event.preventDefault(); commit(i, {value: clamp(genes[i].value + moves[event.key], genes[i])}); }
  if (event.key === 'Backspace' || event.key === 'Delete') commit(i, {value: genes[i].neutral});
  if (event.key === 'm' && genes[i].mri != null) commit(i, {value: clamp(genes[i].mri, genes[i])});
});
function feed() {                // a new stamp brings new values; the same one only new advice, and never undoes a move or a lock
  const incoming = props.value?.genes || [], same = shape_of(incoming) === shape;
  const fresh = !same || props.value?.stamp !== root.dataset.stamp, mine = genes;
  genes = !same ? incoming : incoming.map((g, i) => fresh ? {...g, locked: mine[i].locked} : {...g, value: mine[i].value, locked: mine[i].locked});
  if (fresh) { clearTimeout(timer); root.dataset.stamp = props.value?.stamp ?? ''; start = genes.map(g => g.value); }
  if (!same) build();
  paint();
  mark();
  if (JSON.stringify(genes) !== JSON.stringify(incoming)) props.value = {...props.value, genes};
}
window.addEventListener('darwin-layer', mark);
watch('value', feed);
feed();
