// The bar at the foot of the page: what the lab is doing, how far it is, how long it still takes, and a way to stop it.
// `props.value` = {jobs: [{id, kind, title, message, fraction, eta, state}], notice, title}. Never moves the page.
const bar = element.querySelector('.dl-status'), words = bar.querySelector('.dl-status-words'), fill = bar.querySelector('.dl-status-fill');
const number = bar.querySelector('.dl-status-number'), stop = bar.querySelector('.dl-status-stop'), more = bar.querySelector('.dl-status-more');
const all = bar.querySelector('.dl-status-all');
let text = '';
const minutes = s => s == null ? '' : s < 90 ? `${Math.max(1, Math.round(s))} s left` : `${Math.round(s / 60)} min left`;
function paint() {
  const now = JSON.stringify(props.value);
  if (now === text) return;
  text = now;
  const value = props.value || {}, job = (value.jobs || [])[0];
  bar.dataset.state = job ? job.state : value.notice ? 'notice' : 'idle';
  stop.hidden = !job && !value.notice;
  all.hidden = !(value.jobs?.length > 1);
  all.title = `Stop this one and the ${(value.jobs?.length ?? 1) - 1} that wait`;
  stop.textContent = job ? 'Cancel' : 'Dismiss';
  number.textContent = job ? [`${Math.round(100 * job.fraction)} %`, minutes(job.eta)].filter(Boolean).join(' · ') : '';
  words.textContent = job ? (job.message ? `${job.title}: ${job.message}` : job.title) : value.notice || 'Ready. Nothing is running.';
  fill.style.setProperty('--w', (job ? 100 * job.fraction : 0) + '%');
  fill.parentElement.setAttribute('aria-valuenow', job ? Math.round(100 * job.fraction) : 0);
  more.textContent = value.jobs?.length > 1 ? `+ ${value.jobs.length - 1} waiting` : '';
  more.title = (value.jobs || []).slice(1).map(j => j.title).join('\n');
  window.__darwinJobs = value.jobs || [];
  window.dispatchEvent(new Event('darwin-jobs'));
  document.title = job ? `${Math.round(100 * job.fraction)} % · Darwin Lab` : 'Darwin Lab';
}
const cancel = ids => trigger('select', {cancel: ids});
stop.addEventListener('click', () => cancel((props.value?.jobs || []).slice(0, 1).map(job => job.id)));
all.addEventListener('click', () => cancel((props.value?.jobs || []).map(job => job.id)));
window.addEventListener('darwin-cancel', event => cancel(event.detail));
watch('value', paint);
paint();
